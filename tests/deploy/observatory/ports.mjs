// As `curl --connect-to`: the scanner asks ports 80 and 443 of a site, which are others here.
import net from "node:net";

const connect = net.Socket.prototype.connect;
const ports = { 80: process.env.SITE_HTTP_PORT, 443: process.env.SITE_HTTPS_PORT };
net.Socket.prototype.connect = function (...given) {
  const options = Array.isArray(given[0]) ? given[0][0] : given[0];
  options.port = ports[options.port] ?? options.port;
  return connect.apply(this, given);
};
