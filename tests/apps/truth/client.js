// client.js NAME=ADDRESS,PORT…: what each connection comes to in Node.
const net = require("net");

function connect(host, port) {
  return new Promise((resolve) => {
    let told = "";
    const socket = net.connect({ host, port, allowHalfOpen: true }, () => {
      told += "connected ";
      socket.end("words");
    });
    socket.on("data", (data) => (told += data));
    socket.on("error", (error) => resolve(told + error.code));
    socket.on("close", () => resolve(told));
  });
}

(async () => {
  for (const pair of process.argv.slice(2)) {
    const [name, at] = pair.split("=");
    const comma = at.lastIndexOf(",");
    const begun = Date.now();
    const outcome = await connect(at.slice(0, comma), Number(at.slice(comma + 1)));
    console.log(`${name} node: ${outcome}, ${Math.round((Date.now() - begun) / 1000)} s`);
  }
})();
