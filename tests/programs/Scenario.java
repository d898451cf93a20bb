// Create, step, seek, a large term and an index, by Java's HttpClient.

import java.io.IOException;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse;
import java.net.http.HttpResponse.BodyHandlers;
import java.util.UUID;
import java.util.regex.Pattern;

public class Scenario {
    // By default it offers HTTP/2 with each request, which bjoern refuses where there is a body.
    static final HttpClient CLIENT =
            HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1).build();
    static String service;

    static HttpResponse<String> ask(String method, String path, String body, String... headers)
            throws InterruptedException {
        HttpRequest.Builder request = HttpRequest.newBuilder(URI.create(service + path));
        request.method(
                method,
                body.isEmpty() ? BodyPublishers.noBody() : BodyPublishers.ofString(body));
        if (headers.length > 0) {
            request.headers(headers);
        }
        while (true) {
            try {
                HttpResponse<String> reply = CLIENT.send(request.build(), BodyHandlers.ofString());
                if (reply.statusCode() != 202) {
                    return reply;
                }
            } catch (IOException lost) {
                // Asked again below.
            }
            Thread.sleep(100);
        }
    }

    static String member(HttpResponse<String> reply, String name) {
        var pattern = Pattern.compile("\"" + name + "\": ?\\[?\"([0-9]+)\"");
        var found = pattern.matcher(reply.body());
        return found.find() ? found.group(1) : "none";
    }

    static void show(String what, HttpResponse<String> reply) {
        System.out.println(what + " " + reply.statusCode() + " " + member(reply, "position"));
    }

    public static void main(String[] arguments) throws Exception {
        service = arguments[0];
        String sequence = "/api1/sequences/" + UUID.randomUUID().toString().replace("-", "");
        show("create", ask("PUT", sequence, "", "If-None-Match", "*"));
        String tag = ask("GET", sequence, "").headers().firstValue("ETag").get();
        show("step", ask("POST", sequence + "/next", "", "If-Match", tag));
        String json = "application/json";
        show("seek", ask("PUT", sequence, "{\"position\":\"100\"}", "Content-Type", json));
        String term = ask("GET", "/api1/terms/" + arguments[1], "", "Accept", "text/plain").body();
        int length = term.length();
        System.out.println(
                "term " + length + " " + term.substring(0, 20) + " " + term.substring(length - 20));
        String value = member(ask("GET", sequence, ""), "value");
        var found = ask("POST", "/api1/index", value, "Content-Type", "text/plain");
        System.out.println("index " + member(found, "n"));
    }
}
