// Values and lists in messages, as Python writes them.

// "a, b or c"
export function oneOf(names) {
  const all = [...names];
  const last = all.pop();
  return all.length ? `${all.join(", ")} or ${last}` : last;
}

// Python's repr() of a string, a number, a truth value or nothing.
export function quoted(value) {
  if (typeof value === "string") return quotedString(value);
  if (typeof value === "number") return Number.isInteger(value) ? String(value) : float(value);
  if (typeof value === "boolean") return value ? "True" : "False";
  return "None";
}

// Python's repr() of a float.
export function float(value) {
  if (!Number.isFinite(value)) return notFinite(value);
  const [digits, exponent] = split(value.toExponential());
  if (exponent < -4 || exponent >= 16) return scientific(digits, exponent);
  return Number.isInteger(value) ? `${value}.0` : fixed(digits, exponent);
}

// Python's format(value, "g"): six significant digits.
export function general(value) {
  if (!Number.isFinite(value)) return notFinite(value);
  const [digits, exponent] = split(value.toExponential(5));
  const short = digits.includes(".") ? digits.replace(/\.?0+$/, "") : digits;
  return exponent < -4 || exponent >= 6 ? scientific(short, exponent) : fixed(short, exponent);
}

function notFinite(value) {
  return Number.isNaN(value) ? "nan" : value < 0 ? "-inf" : "inf";
}

function split(text) {
  const [digits, exponent] = text.split("e");
  return [digits, Number(exponent)];
}

function scientific(digits, exponent) {
  return `${digits}e${exponent < 0 ? "-" : "+"}${String(Math.abs(exponent)).padStart(2, "0")}`;
}

// A number without an exponent: digits "d.ddd" times a power of ten.
function fixed(digits, exponent) {
  const [, sign, mantissa] = digits.match(/^(-?)(.*)$/);
  const figures = mantissa.replace(".", "");
  if (exponent < 0) return `${sign}0.${"0".repeat(-exponent - 1)}${figures}`;
  const whole = figures.padEnd(exponent + 1, "0");
  const rest = whole.slice(exponent + 1);
  return sign + whole.slice(0, exponent + 1) + (rest && `.${rest}`);
}

const ESCAPES = { "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t" };

function quotedString(text) {
  const quote = text.includes("'") && !text.includes('"') ? '"' : "'";
  const escaped = text.replace(/[\p{C}\p{Z}\\'"]/gu, (letter) => {
    if (letter === " ") return letter;
    if (letter === "'" || letter === '"') return letter === quote ? `\\${letter}` : letter;
    if (letter in ESCAPES) return ESCAPES[letter];
    const code = letter.codePointAt(0);
    const [mark, width] = code < 0x100 ? ["x", 2] : code < 0x10000 ? ["u", 4] : ["U", 8];
    return `\\${mark}${code.toString(16).padStart(width, "0")}`;
  });
  return quote + escaped + quote;
}
