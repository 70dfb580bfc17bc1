// A client on nice-grpc. Each line of its input is a job, each line of its output says how one ended: jobs.py has both.
const path = require("path");
const readline = require("readline");
const grpc = require("@grpc/grpc-js");
const loader = require("@grpc/proto-loader");
const { ClientError, Metadata, Status, createChannel, createClient } = require("nice-grpc");

const proto = loader.loadSync(path.join(__dirname, "..", "peer.proto"));
const { service } = grpc.loadPackageDefinition(proto).interop.v1.Peer;
const channel = createChannel(process.argv[2], undefined, {
  "grpc.max_receive_message_length": 64 * 1024 * 1024,
  "grpc.initial_reconnect_backoff_ms": 100,
});
const client = createClient(service, channel);

async function* requests(job, over) {
  yield { value: job.text };
  if (job.open) await over;
}

async function perform(job) {
  const messages = [];
  const stop = new AbortController();
  const [method, up, down] = {
    Unary: ["Unary", false, false],
    Down: ["Down", false, true],
    Up: ["Up", true, false],
    Both: ["Both", true, true],
  }[job.method];
  let finish;
  const over = new Promise((resolve) => (finish = resolve));
  const timers = [];
  if (job.timeout) timers.push(setTimeout(() => stop.abort(), 1000 * job.timeout));
  if (job.cancel_after) timers.push(setTimeout(() => stop.abort(), 1000 * job.cancel_after));
  let trailers = new Metadata();
  const metadata = new Metadata(job.metadata);
  const options = { metadata, signal: stop.signal, onTrailer: (received) => (trailers = received) };
  const ending = { id: job.id, code: "OK", details: "", messages };
  try {
    const call = client[method](up ? requests(job, over) : { value: job.text }, options);
    if (down) for await (const answer of call) messages.push(answer.value.slice(0, 40));
    else messages.push((await call).value.slice(0, 40));
  } catch (error) {
    const known = error instanceof ClientError;
    ending.code = known ? Status[error.code] ?? String(error.code) : error.name;
    ending.details = known ? error.details : error.name === "AbortError" ? "" : error.message;
  }
  timers.forEach(clearTimeout);
  finish();
  ending.word = trailers.getAll("word");
  const rich = trailers.get("grpc-status-details-bin");
  if (rich) ending.rich = Buffer.from(rich).toString("base64");
  console.log(JSON.stringify(ending));
}

const lines = readline.createInterface({ input: process.stdin });
lines.on("line", (line) => perform(JSON.parse(line)));
lines.on("close", () => channel.close());
