// Java's two HTTP clients, by default: java Defaults.java CLIENT PROXY_PORT ORIGIN. Prints the status of each answer.

import java.io.IOException;
import java.net.HttpURLConnection;
import java.net.InetSocketAddress;
import java.net.Proxy;
import java.net.ProxySelector;
import java.net.URI;
import java.net.URL;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse.BodyHandlers;

public class Defaults {
    public static void main(String[] args) throws Exception {
        InetSocketAddress proxy = new InetSocketAddress("127.0.0.1", Integer.parseInt(args[1]));
        HttpClient client = HttpClient.newBuilder().proxy(ProxySelector.of(proxy)).build();
        for (byte[] body : new byte[][] {null, "a=b".getBytes(), null}) {
            String url = args[2] + "/java";
            System.out.println(
                args[0].equals("HttpClient") ? request(client, url, body) : connection(new Proxy(Proxy.Type.HTTP, proxy), url, body));
        }
    }

    static int connection(Proxy proxy, String url, byte[] body) throws IOException {
        HttpURLConnection connection = (HttpURLConnection) new URL(url).openConnection(proxy);
        if (body != null) {
            connection.setDoOutput(true);
            connection.getOutputStream().write(body);
        }
        connection.getInputStream().readAllBytes();
        return connection.getResponseCode();
    }

    static int request(HttpClient client, String url, byte[] body) throws Exception {
        HttpRequest.Builder request = HttpRequest.newBuilder(URI.create(url));
        if (body != null) {
            request.POST(BodyPublishers.ofByteArray(body));
        }
        return client.send(request.build(), BodyHandlers.discarding()).statusCode();
    }
}
