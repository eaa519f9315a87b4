// Java's two HTTP clients, told to do what went wrong with a proxy: java Reported.java CLIENT PROXY_PORT ORIGIN.
// Prints a line for each request: its name, then the status of the answer.

import java.io.IOException;
import java.net.Authenticator;
import java.net.HttpURLConnection;
import java.net.InetSocketAddress;
import java.net.PasswordAuthentication;
import java.net.Proxy;
import java.net.ProxySelector;
import java.net.URI;
import java.net.URL;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse.BodyHandlers;
import java.time.Duration;

public class Reported {
    static final int SMALL = 10, LARGE = 8 << 20;

    static class Login extends Authenticator {
        @Override
        protected PasswordAuthentication getPasswordAuthentication() {
            return new PasswordAuthentication("user", "pass".toCharArray());
        }
    }

    static InetSocketAddress proxy;
    static String origin;

    public static void main(String[] args) throws Exception {
        proxy = new InetSocketAddress("127.0.0.1", Integer.parseInt(args[1]));
        origin = args[2];
        if (args[0].equals("HttpURLConnection")) {
            Authenticator.setDefault(new Login());
            connection("HEAD", "/head", 0);
            connection("GET", "?query", 0);
            connection("PUT", "/small", SMALL);
            connection("PUT", "/too-large", LARGE);
        } else {
            HttpClient client = HttpClient.newBuilder()
                .proxy(ProxySelector.of(proxy)).authenticator(new Login()).build();
            request(client, "HEAD", "/head", 0);
            request(client, "GET", "?query", 0);
            request(client, "PUT", "/small", SMALL);
            request(client, "PUT", "/too-large", LARGE);
        }
    }

    static void connection(String method, String path, int size) throws IOException {
        HttpURLConnection connection =
            (HttpURLConnection) new URL(origin + path).openConnection(new Proxy(Proxy.Type.HTTP, proxy));
        connection.setRequestMethod(method);
        connection.setReadTimeout(10_000);
        if (size > 0) {
            connection.setDoOutput(true);
            connection.setFixedLengthStreamingMode(size);
            connection.setRequestProperty("Expect", "100-continue");
            try {
                connection.getOutputStream().write(new byte[size]);
            } catch (IOException refused) {
                // The answer came first, and says why.
            }
        }
        System.out.println(path + " " + connection.getResponseCode());
    }

    static void request(HttpClient client, String method, String path, int size) throws Exception {
        HttpRequest request = HttpRequest.newBuilder(URI.create(origin + path))
            .timeout(Duration.ofSeconds(10))
            .expectContinue(size > 0)
            .method(method, size > 0 ? BodyPublishers.ofByteArray(new byte[size]) : BodyPublishers.noBody())
            .build();
        System.out.println(path + " " + client.send(request, BodyHandlers.discarding()).statusCode());
    }
}
