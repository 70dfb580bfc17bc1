import com.google.common.io.ByteStreams;
import com.google.gson.Gson;
import io.grpc.CallOptions;
import io.grpc.ClientCall;
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
import java.util.Base64;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;

/** A client on grpc-java. Each line of its input is a job, each of its output says how one ended: jobs.py has both. */
public final class PeerClient {
    private static final Gson GSON = new Gson();
    private static final int BYTES = 64 << 20;
    private static final Metadata.Key<byte[]> RICH =
            Metadata.Key.of("grpc-status-details-bin", Metadata.BINARY_BYTE_MARSHALLER);
    private static final Map<String, MethodType> KINDS = Map.of(
            "Unary", MethodType.UNARY,
            "Down", MethodType.SERVER_STREAMING,
            "Up", MethodType.CLIENT_STREAMING,
            "Both", MethodType.BIDI_STREAMING);

    private static final class Job {
        String id;
        String method;
        String text;
        boolean open;
        Double timeout;
        Double cancel_after;
        Map<String, String> metadata = Map.of();
    }

    private static final class Ending {
        String id;
        String code;
        String details;
        List<String> messages = new ArrayList<>();
        List<String> word = new ArrayList<>();
        String rich;
    }

    public static void main(String[] arguments) throws Exception {
        ManagedChannel channel = NettyChannelBuilder.forTarget(arguments[0]).usePlaintext().maxInboundMessageSize(BYTES).build();
        BufferedReader lines = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line = lines.readLine(); line != null; line = lines.readLine()) {
            perform(channel, GSON.fromJson(line, Job.class));
        }
        channel.shutdown();
        channel.awaitTermination(30, TimeUnit.SECONDS);
    }

    private static void perform(ManagedChannel channel, Job job) {
        CallOptions options = job.timeout == null
                ? CallOptions.DEFAULT
                : CallOptions.DEFAULT.withDeadlineAfter(nanos(job.timeout), TimeUnit.NANOSECONDS);
        ClientCall<String, String> call = channel.newCall(method(job), options);
        Metadata metadata = new Metadata();
        job.metadata.forEach((name, value) -> metadata.put(key(name), value));
        Ending ending = new Ending();
        ending.id = job.id;
        call.start(
                new ClientCall.Listener<String>() {
                    @Override
                    public void onMessage(String message) {
                        ending.messages.add(message.substring(0, Math.min(message.length(), 40)));
                        call.request(1);
                    }

                    @Override
                    public void onClose(Status status, Metadata trailers) {
                        ending.code = status.getCode().name();
                        ending.details = status.getDescription();
                        Iterable<String> words = trailers.getAll(key("word"));
                        if (words != null) {
                            words.forEach(ending.word::add);
                        }
                        byte[] rich = trailers.get(RICH);
                        ending.rich = rich == null ? null : Base64.getEncoder().encodeToString(rich);
                        synchronized (System.out) {
                            System.out.println(GSON.toJson(ending));
                        }
                    }
                },
                metadata);
        call.request(2); // a unary call needs a second one to see the end
        call.sendMessage(job.text);
        if (!job.open) {
            call.halfClose();
        }
        if (job.cancel_after != null) {
            CompletableFuture.delayedExecutor(nanos(job.cancel_after), TimeUnit.NANOSECONDS)
                    .execute(() -> call.cancel("by the application", null));
        }
    }

    private static MethodDescriptor<String, String> method(Job job) {
        return MethodDescriptor.<String, String>newBuilder()
                .setType(KINDS.get(job.method))
                .setFullMethodName("interop.v1.Peer/" + job.method)
                .setRequestMarshaller(new Text())
                .setResponseMarshaller(new Text())
                .build();
    }

    private static Metadata.Key<String> key(String name) {
        return Metadata.Key.of(name, Metadata.ASCII_STRING_MARSHALLER);
    }

    private static long nanos(double seconds) {
        return Math.round(seconds * 1e9);
    }

    /** google.protobuf.StringValue without protobuf: a tag, the length as a varint, the text. */
    private static final class Text implements MethodDescriptor.Marshaller<String> {
        @Override
        public InputStream stream(String text) {
            byte[] bytes = text.getBytes(StandardCharsets.UTF_8);
            byte[] head = new byte[] {10, 0, 0, 0, 0, 0};
            int end = 1;
            for (int left = bytes.length; ; left >>>= 7) {
                head[end++] = (byte) (left > 127 ? left & 127 | 128 : left);
                if (left <= 127) {
                    break;
                }
            }
            byte[] message = java.util.Arrays.copyOf(head, end + bytes.length);
            System.arraycopy(bytes, 0, message, end, bytes.length);
            return new ByteArrayInputStream(message);
        }

        @Override
        public String parse(InputStream stream) {
            try {
                byte[] message = ByteStreams.toByteArray(stream);
                int start = Math.min(1, message.length);
                while (start < message.length && message[start++] < 0) {}
                return new String(message, start, message.length - start, StandardCharsets.UTF_8);
            } catch (IOException error) {
                throw new UncheckedIOException(error);
            }
        }
    }
}
