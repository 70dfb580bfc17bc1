// The service of shop.proto on grpc-js, with reflection (v1 and v1alpha) and health. It prints its port, and serves until its
// standard input ends. An order without id is NOT_FOUND; DETAILS: a google.rpc.Status for it, in base64.
const path = require("path");
const load = (name) => require(path.join(__dirname, "..", "node_modules", name));
const grpc = load("@grpc/grpc-js");
const { ReflectionService } = load("@grpc/reflection");
const { HealthImplementation } = load("grpc-health-check");

const definition = load("@grpc/proto-loader").loadSync(path.join(__dirname, "shop.proto"));
const { Shop } = grpc.loadPackageDefinition(definition).interpose.shop;

function refusal(order) {
  if (order.id) return null;
  const metadata = new grpc.Metadata();
  metadata.set("grpc-status-details-bin", Buffer.from(process.env.DETAILS, "base64"));
  return { code: grpc.status.NOT_FOUND, details: "no such order", metadata };
}

const methods = {
  Get: (call, callback) => callback(refusal(call.request), call.request),
  Watch: (call) => {
    for (let id = 1; id <= call.request.id; id++) call.write({ id });
    call.end();
  },
  Upload: (call, callback) => {
    let orders = 0;
    call.on("data", () => orders++);
    call.on("end", () => callback(null, { orders }));
  },
  Trade: (call) => {
    call.on("data", (order) => call.write(order));
    call.on("end", () => call.end());
  },
};

const server = new grpc.Server();
server.addService(Shop.service, methods);
new ReflectionService(definition).addToServer(server);
new HealthImplementation({ "": "SERVING", "interpose.shop.Shop": "SERVING" }).addToServer(server);
server.bindAsync("127.0.0.1:0", grpc.ServerCredentials.createInsecure(), (error, port) => {
  if (error) throw error;
  console.log(port);
});
process.stdin.on("end", () => server.forceShutdown()).resume();
