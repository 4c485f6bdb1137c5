import com.sun.net.httpserver.HttpServer;
import java.net.InetSocketAddress;

/** The JDK's own HTTP server: Http PORT. */
public class Http {
    public static void main(String[] words) throws Exception {
        InetSocketAddress at = new InetSocketAddress("0.0.0.0", Integer.parseInt(words[0]));
        HttpServer server = HttpServer.create(at, 0);
        server.createContext("/", exchange -> {
            String body = "{\"name\":\"httpserver\",\"peer\":\"" + text(exchange.getRemoteAddress())
                    + "\",\"local\":\"" + text(exchange.getLocalAddress()) + "\"}";
            exchange.sendResponseHeaders(200, body.length());
            exchange.getResponseBody().write(body.getBytes());
            exchange.close();
        });
        server.start();
        System.out.println("listening 0.0.0.0:" + server.getAddress().getPort());
    }

    private static String text(InetSocketAddress one) {
        return one.getAddress().getHostAddress() + ":" + one.getPort();
    }
}
