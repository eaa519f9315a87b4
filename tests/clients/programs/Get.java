import java.net.HttpURLConnection;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;

/** Gets a URL by one of the two clients that Java has. */
class Get {
    public static void main(String[] arguments) throws Exception {
        URI uri = URI.create(arguments[1]);
        int status = arguments[0].equals("client")
            ? HttpClient.newHttpClient()
                .send(HttpRequest.newBuilder(uri).build(), HttpResponse.BodyHandlers.ofString())
                .statusCode()
            : ((HttpURLConnection) uri.toURL().openConnection()).getResponseCode();
        System.exit(status == 200 ? 0 : 1);
    }
}
