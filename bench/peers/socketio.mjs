// Socket.IO with its Redis adapter: node socketio.mjs PORT REDIS_PORT
// As https://socket.io/docs/v4/performance-tuning/ advises: WebSocket only (no polling before it), no compression, the native
// bufferutil, and no copy of each connection's first HTTP request kept.
import { createServer } from "node:http";
import { Server } from "socket.io";
import { createAdapter } from "@socket.io/redis-adapter";
import { Redis } from "ioredis";

const [port, redisPort] = process.argv.slice(2).map(Number);
const redis = () => new Redis(redisPort, "127.0.0.1", { enableAutoPipelining: true });
const http = createServer((_, response) => response.end("ready"));
const io = new Server(http, {
  transports: ["websocket"],
  perMessageDeflate: false,
  httpCompression: false,
  serveClient: false,
  adapter: createAdapter(redis(), redis(), { publishOnSpecificResponseChannel: true }),
});
io.engine.on("connection", (socket) => {
  socket.request = null;
});
io.on("connection", (socket) => {
  socket.on("join", (room, done) => {
    socket.join(room);
    done();
  });
  // The answer of the one socket in the room, wherever it is; nothing when it didn't come in time.
  socket.on("request", (room, text, done) =>
    io.to(room).timeout(5000).emit("request", text, (error, answers) => done(error ? null : answers[0])));
  socket.on("send", (room, text) => io.to(room).emit("m", text));
});
http.listen({ port, host: "127.0.0.1", backlog: 4096 });
