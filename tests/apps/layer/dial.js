// dial.js IP:PORT…: what node's connections come to.
const net = require('net');

for (const word of process.argv.slice(2)) {
  const [host, port] = word.split(':');
  const socket = net.connect({ host, port: Number(port) });
  const say = result => console.log(JSON.stringify([word, result]));
  socket.on('error', error => say(error.code));
  socket.on('connect', () => {
    say([socket.localAddress, socket.remoteAddress, socket.remotePort]);
    socket.destroy();
  });
}
