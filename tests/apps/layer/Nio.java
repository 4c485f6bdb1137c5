import java.net.InetSocketAddress;
import java.nio.ByteBuffer;
import java.nio.channels.SelectionKey;
import java.nio.channels.Selector;
import java.nio.channels.ServerSocketChannel;
import java.nio.channels.SocketChannel;
import java.nio.charset.StandardCharsets;

/** A server with a selector: Nio PORT. */
public class Nio {
    public static void main(String[] words) throws Exception {
        Selector selector = Selector.open();
        ServerSocketChannel listener = ServerSocketChannel.open();
        listener.bind(new InetSocketAddress("0.0.0.0", Integer.parseInt(words[0])));
        listener.configureBlocking(false);
        listener.register(selector, SelectionKey.OP_ACCEPT);
        System.out.println("listening " + text(listener.getLocalAddress()));
        while (true) {
            selector.select();
            for (SelectionKey key : selector.selectedKeys()) {
                if (key.isAcceptable()) {
                    SocketChannel client = listener.accept();
                    client.configureBlocking(false);
                    client.register(selector, SelectionKey.OP_READ);
                } else {
                    answer((SocketChannel) key.channel());
                }
            }
            selector.selectedKeys().clear();
        }
    }

    private static void answer(SocketChannel client) throws Exception {
        client.read(ByteBuffer.allocate(2048));
        String body = "{\"name\":\"nio\",\"peer\":\"" + text(client.getRemoteAddress())
                + "\",\"local\":\"" + text(client.getLocalAddress()) + "\"}";
        String head = "HTTP/1.0 200 OK\r\ncontent-length: " + body.length() + "\r\n\r\n";
        client.write(ByteBuffer.wrap((head + body).getBytes(StandardCharsets.US_ASCII)));
        client.close();
    }

    private static String text(Object address) {
        InetSocketAddress one = (InetSocketAddress) address;
        String ip = one.getAddress().getHostAddress();
        return (ip.equals("0:0:0:0:0:0:0:0") ? "0.0.0.0" : ip) + ":" + one.getPort();
    }
}
