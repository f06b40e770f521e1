// The engine of this page. A folder written by `gomin-gateway --static` has another one here.
export { GatewayEngine as Engine } from "./engine-gateway.js";
