// The service of peer.proto on grpc-js or nice-grpc, as the argument says. A request says how its call ends: test_endings.py has the list.
// It prints its port, and serves until its standard input ends. DETAILS: a google.rpc.Status, in base64.
const path = require("path");
const load = (name) => require(path.join(__dirname, "..", "node_modules", name));
const grpc = load("@grpc/grpc-js");
const { Metadata, ServerError, createServer } = load("nice-grpc");

const definition = load("@grpc/proto-loader").loadSync(path.join(__dirname, "..", "peer.proto"));
const { service } = grpc.loadPackageDefinition(definition).interop.v1.Peer;
const ENDS = {
  abort: { code: grpc.status.NOT_FOUND, details: "no order 8: größer 😀" },
  rich: {
    code: grpc.status.FAILED_PRECONDITION,
    details: "sold out",
    trailers: { "grpc-status-details-bin": Buffer.from(process.env.DETAILS, "base64") },
  },
  odd: { code: 42, details: "odd" },
  again: { code: grpc.status.UNAVAILABLE, details: "not yet", trailers: { "grpc-retry-pushback-ms": "1" } },
};
const SIZES = { large: 3_000_000, oversized: 5_000_000 };

const seen = new Set();

// How a call ends that is not answered: an Error for a bug, else one of ENDS.
function failure(text) {
  if (text === "bug") return new Error("boom");
  if (!text.startsWith("again")) return ENDS[text];
  return seen.size < seen.add(text).size ? ENDS.again : undefined;
}

function answer(text) {
  return { value: text in SIZES ? "x".repeat(SIZES[text]) : text.slice(0, 40) };
}

function grpcJs() {
  const server = new grpc.Server();
  const end = (call, text, succeed, fail) => {
    if (text === "wait") return;
    const failed = failure(text);
    if (!failed) return succeed(answer(text));
    if (failed instanceof Error) return fail(failed);
    const metadata = new grpc.Metadata();
    Object.entries(failed.trailers ?? {}).forEach(([key, value]) => metadata.set(key, value));
    fail({ code: failed.code, details: failed.details, metadata });
  };
  const unary = (call, callback) => (text) => end(call, text, (value) => callback(null, value), callback);
  const stream = (call) => (text) =>
    end(call, text, (value) => call.end(call.write(value) && undefined), (error) => call.emit("error", error));
  const last = (call, then) => {
    let text;
    call.on("data", (request) => (text = request.value));
    call.on("end", () => then(text));
  };
  server.addService(service, {
    Unary: (call, callback) => unary(call, callback)(call.request.value),
    Down: (call) => stream(call)(call.request.value),
    Up: (call, callback) => last(call, unary(call, callback)),
    Both: (call) => last(call, stream(call)),
  });
  server.bindAsync("127.0.0.1:0", grpc.ServerCredentials.createInsecure(), (error, port) => {
    if (error) throw error;
    console.log(port);
  });
}

async function niceGrpc() {
  const end = async (text, context) => {
    if (text === "wait") await new Promise((resolve) => context.signal.addEventListener("abort", resolve));
    const failed = failure(text);
    if (!failed) return answer(text);
    if (failed instanceof Error) throw failed;
    Object.entries(failed.trailers ?? {}).forEach(([key, value]) => context.trailer.set(key, value));
    throw new ServerError(failed.code, failed.details);
  };
  const last = async (requests) => {
    let text;
    for await (const request of requests) text = request.value;
    return text;
  };
  const server = createServer();
  server.add(service, {
    Unary: (request, context) => end(request.value, context),
    async *Down(request, context) {
      yield await end(request.value, context);
    },
    Up: async (requests, context) => end(await last(requests), context),
    async *Both(requests, context) {
      yield await end(await last(requests), context);
    },
  });
  console.log(await server.listen("127.0.0.1:0"));
}

process.argv[2] === "nice-grpc" ? niceGrpc() : grpcJs();
process.stdin.on("end", () => process.exit()).resume();
