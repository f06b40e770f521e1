// A .npy file of little-endian float32 in C order -> {shape, values}.
// https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
export function parseNpy(buffer) {
  const view = new DataView(buffer);
  const major = view.getUint8(6);
  const size = major === 1 ? view.getUint16(8, true) : view.getUint32(8, true);
  const start = (major === 1 ? 10 : 12) + size;
  const header = new TextDecoder("latin1").decode(new Uint8Array(buffer, start - size, size));
  const shape = /'shape':\s*\(([^)]*)\)/.exec(header)?.[1];
  if (!header.includes("'<f4'") || !header.includes("'fortran_order': False") || shape === undefined) {
    throw new Error(`unexpected .npy file: ${header.trim()}`);
  }
  const sizes = shape.split(",").map((word) => word.trim()).filter(Boolean).map(Number);
  // sliced, because data may begin at any byte
  return { shape: sizes, values: new Float32Array(buffer.slice(start)) };
}
