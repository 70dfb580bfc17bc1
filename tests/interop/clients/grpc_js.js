// A client on grpc-js. Each line of its input is a job, each line of its output says how one ended: jobs.py has both.
const path = require("path");
const readline = require("readline");
const grpc = require("@grpc/grpc-js");
const loader = require("@grpc/proto-loader");

const proto = loader.loadSync(path.join(__dirname, "..", "peer.proto"));
const { Peer } = grpc.loadPackageDefinition(proto).interop.v1;
const BYTES = 64 * 1024 * 1024;
const client = new Peer(process.argv[2], grpc.credentials.createInsecure(), {
  "grpc.max_receive_message_length": BYTES,
  "grpc.initial_reconnect_backoff_ms": 100,
});

function perform(job) {
  const messages = [];
  const options = job.timeout ? { deadline: Date.now() + 1000 * job.timeout } : {};
  const request = { value: job.text };
  const metadata = new grpc.Metadata();
  Object.entries(job.metadata ?? {}).forEach(([key, value]) => metadata.set(key, value));
  const end = (status) => {
    const rich = status.metadata?.get("grpc-status-details-bin")[0];
    const code = grpc.status[status.code] ?? String(status.code);
    const ending = { id: job.id, code, details: status.details, messages, rich: rich?.toString("base64") };
    console.log(JSON.stringify({ ...ending, word: status.metadata?.get("word") }));
  };
  const one = (error, answer) => {
    if (answer) messages.push(answer.value.slice(0, 40));
  };
  const call = {
    Unary: () => client.Unary(request, metadata, options, one),
    Down: () => client.Down(request, metadata, options),
    Up: () => client.Up(metadata, options, one),
    Both: () => client.Both(metadata, options),
  }[job.method]();
  if (job.method === "Down" || job.method === "Both") {
    call.on("data", (answer) => messages.push(answer.value.slice(0, 40)));
    call.on("error", () => {}); // its status says the same
  }
  call.on("status", end);
  if (job.method === "Up" || job.method === "Both") {
    call.write(request);
    if (!job.open) call.end();
  }
  if (job.cancel_after) setTimeout(() => call.cancel(), 1000 * job.cancel_after);
}

const lines = readline.createInterface({ input: process.stdin });
lines.on("line", (line) => perform(JSON.parse(line)));
lines.on("close", () => client.close());
