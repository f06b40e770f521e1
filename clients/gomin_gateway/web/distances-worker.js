// Computes distances beside the page, which stays responsive.
import { distances } from "./distances.js";

self.onmessage = ({ data }) => self.postMessage(distances(data.original, data.reconstruction));
