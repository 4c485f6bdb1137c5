import com.sun.net.httpserver.HttpServer;
import java.net.InetSocketAddress;
import java.net.Socket;

/** Answers with what PostgreSQL says to a request for TLS: one letter. */
class Shop {
    public static void main(String[] arguments) throws Exception {
        HttpServer server = HttpServer.create(new InetSocketAddress(8080), 0);
        server.createContext("/", exchange -> {
            byte[] answer;
            try (Socket database = new Socket("db", 5432)) {
                database.getOutputStream().write(new byte[] {0, 0, 0, 8, 4, (byte) 0xd2, 22, 47});
                answer = ("java, and the database says " + (char) database.getInputStream().read()).getBytes();
            }
            exchange.sendResponseHeaders(200, answer.length);
            exchange.getResponseBody().write(answer);
            exchange.close();
        });
        server.start();
    }
}
