// The same fan-out by Node's `ws`: every message posted to /broadcast goes to all viewers.
import { createServer } from "node:http";
import { WebSocketServer } from "ws";

const viewers = new Set();
const server = createServer((request, response) => {
  const parts = [];
  request.on("data", (part) => parts.push(part));
  request.on("end", () => {
    const message = Buffer.concat(parts);
    JSON.parse(message.toString());
    for (const viewer of viewers) viewer.send(message, { binary: false });
    response.writeHead(200, { "content-type": "application/json" }).end('{"success":true}');
  });
});
const sockets = new WebSocketServer({ server, perMessageDeflate: false });
sockets.on("connection", (socket) => {
  viewers.add(socket);
  socket.on("close", () => viewers.delete(socket));
});
server.listen(0, "127.0.0.1", () => console.log(server.address().port));
