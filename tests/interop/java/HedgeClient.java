import com.google.common.io.ByteStreams;
import com.google.gson.Gson;
import io.grpc.CallOptions;
import io.grpc.ClientCall;
import io.grpc.ConnectivityState;
import io.grpc.ManagedChannel;
import io.grpc.Metadata;
import io.grpc.MethodDescriptor;
import io.grpc.MethodDescriptor.MethodType;
import io.grpc.Status;
import io.grpc.netty.NettyChannelBuilder;
import java.io.BufferedReader;
import java.io.ByteArrayInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.InputStreamReader;
import java.io.UncheckedIOException;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;

/** Calls a server with grpc-java: each line of the input is a job, each of the output what came of it, as JSON. */
public final class HedgeClient {
    private static final Gson GSON = new Gson();
    private static final long PATIENCE = 30; // seconds after which a call counts as hung

    /** A channel, and calls to make on it one after the other. Times are in seconds; null: no limit, no cancel. */
    private static final class Job {
        String target;
        String method;
        boolean streams;
        Map<String, ?> config;
        List<String> requests;
        Double timeout;
        Double cancelAfter;
    }

    /** How a call ended, and how many seconds after it had begun. */
    private static final class Ending {
        String code;
        String details;
        List<String> messages;
        double elapsed;
    }

    public static void main(String[] arguments) throws Exception {
        BufferedReader lines = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line = lines.readLine(); line != null; line = lines.readLine()) {
            System.out.println(GSON.toJson(perform(GSON.fromJson(line, Job.class))));
        }
    }

    private static List<Ending> perform(Job job) throws Exception {
        ManagedChannel channel = NettyChannelBuilder.forTarget(job.target)
                .usePlaintext()
                .disableServiceConfigLookUp()
                .defaultServiceConfig(job.config)
                .enableRetry() // hedging too
                .build();
        try {
            connect(channel);
            List<Ending> endings = new ArrayList<>();
            for (String request : job.requests) {
                endings.add(call(channel, job, request).get(PATIENCE, TimeUnit.SECONDS));
            }
            return endings;
        } finally {
            channel.shutdown(); // not now: what it left running has to be seen running
        }
    }

    /** Waits for the connection, so that no call is late because of it. */
    private static void connect(ManagedChannel channel) throws Exception {
        for (ConnectivityState state = channel.getState(true);
                state != ConnectivityState.READY;
                state = channel.getState(true)) {
            CompletableFuture<Void> changed = new CompletableFuture<>();
            channel.notifyWhenStateChanged(state, () -> changed.complete(null));
            changed.get(PATIENCE, TimeUnit.SECONDS);
        }
    }

    private static CompletableFuture<Ending> call(ManagedChannel channel, Job job, String request) {
        long start = System.nanoTime();
        ClientCall<String, String> call = channel.newCall(method(job), options(job));
        List<String> messages = new ArrayList<>();
        CompletableFuture<Ending> ended = new CompletableFuture<>();
        call.start(
                new ClientCall.Listener<String>() {
                    @Override
                    public void onMessage(String message) {
                        messages.add(message);
                        call.request(1);
                    }

                    @Override
                    public void onClose(Status status, Metadata trailers) {
                        Ending ending = new Ending();
                        ending.code = status.getCode().name();
                        ending.details = status.getDescription();
                        ending.messages = messages;
                        ending.elapsed = (System.nanoTime() - start) / 1e9;
                        ended.complete(ending);
                    }
                },
                new Metadata());
        call.request(2); // a unary call needs a second one to see the end
        call.sendMessage(request);
        call.halfClose();
        if (job.cancelAfter != null) {
            CompletableFuture.delayedExecutor(nanos(job.cancelAfter), TimeUnit.NANOSECONDS)
                    .execute(() -> call.cancel("by the application", null));
        }
        return ended;
    }

    private static MethodDescriptor<String, String> method(Job job) {
        return MethodDescriptor.<String, String>newBuilder()
                .setType(job.streams ? MethodType.SERVER_STREAMING : MethodType.UNARY)
                .setFullMethodName(job.method)
                .setRequestMarshaller(new Text())
                .setResponseMarshaller(new Text())
                .build();
    }

    private static CallOptions options(Job job) {
        return job.timeout == null
                ? CallOptions.DEFAULT
                : CallOptions.DEFAULT.withDeadlineAfter(nanos(job.timeout), TimeUnit.NANOSECONDS);
    }

    private static long nanos(double seconds) {
        return Math.round(seconds * 1e9);
    }

    /** Messages are text, without protobuf. */
    private static final class Text implements MethodDescriptor.Marshaller<String> {
        @Override
        public InputStream stream(String text) {
            return new ByteArrayInputStream(text.getBytes(StandardCharsets.UTF_8));
        }

        @Override
        public String parse(InputStream stream) {
            try {
                return new String(ByteStreams.toByteArray(stream), StandardCharsets.UTF_8);
            } catch (IOException error) {
                throw new UncheckedIOException(error);
            }
        }
    }
}
