/**
 * Numbers in arguments and values, exactly as Redis reads and writes them: 64-bit integers, and the long
 * double of INCRBYFLOAT.
 *
 * An x87 long double has 64 bits of mantissa. Here it is a whole number times a power of two, rounded to 64
 * bits half to even after reading and after adding, and printed as "%.17Lf" prints it, so results agree to
 * the last digit with a Redis on x86.
 */

export const INT64_MAX = 2n ** 63n - 1n;
export const INT64_MIN = -(2n ** 63n);

/**
 * A 64-bit integer in its only decimal form (no "+", no leading zero, no blank).
 * @returns a number when it is a safe one, else a bigint; undefined when it is no such integer
 */
export function parseInteger(
  bytes: Uint8Array,
  start: number,
  end: number,
): number | bigint | undefined {
  let at = start;
  const negative = bytes[at] === 45;
  if (negative) at++;
  const digits = end - at;
  if (digits < 1 || digits > 19) return undefined;
  const first = bytes[at]!;
  if (first === 48 && end - start > 1) return undefined;
  if (digits <= 15) {
    let value = 0;
    for (; at < end; at++) {
      const digit = bytes[at]! - 48;
      if (digit < 0 || digit > 9) return undefined;
      value = value * 10 + digit;
    }
    return negative ? -value : value;
  }
  let text = negative ? "-" : "";
  for (; at < end; at++) {
    const digit = bytes[at]! - 48;
    if (digit < 0 || digit > 9) return undefined;
    text += digit;
  }
  const value = BigInt(text);
  if (value > INT64_MAX || value < INT64_MIN) return undefined;
  return narrow(value);
}

/** As a number where that is exact. */
export function narrow(value: bigint): number | bigint {
  return value <= 9007199254740991n && value >= -9007199254740991n ? Number(value) : value;
}

/** Sum of two 64-bit integers. @returns undefined on overflow */
export function addIntegers(a: number | bigint, b: number | bigint): number | bigint | undefined {
  if (typeof a === "number" && typeof b === "number") {
    const sum = a + b;
    if (Number.isSafeInteger(sum)) return sum;
  }
  const sum = BigInt(a) + BigInt(b);
  if (sum > INT64_MAX || sum < INT64_MIN) return undefined;
  return narrow(sum);
}

/** mantissa * 2^exponent. */
export interface LongDouble {
  readonly mantissa: bigint;
  readonly exponent: number;
  readonly infinite: boolean;
}

const MANTISSA_BITS = 64;
const EXPONENT_MAX = 16384;
/** Exponent of the last bit of the smallest denormal number. */
const EXPONENT_MIN = -16445;
/** Longest text Redis converts. @unit bytes */
const FLOAT_CHARS_MAX = 5 * 1024;

function bitLength(value: bigint): number {
  return value === 0n ? 0 : value.toString(2).length;
}

function infinity(negative: boolean): LongDouble {
  return { mantissa: negative ? -1n : 1n, exponent: 0, infinite: true };
}

/** numerator / denominator * 2^exponent, rounded. */
function round(numerator: bigint, denominator: bigint, exponent: number): LongDouble {
  if (numerator === 0n) return { mantissa: 0n, exponent: 0, infinite: false };
  const negative = numerator < 0n;
  let top = negative ? -numerator : numerator;
  let bottom = denominator;
  let shift = bitLength(top) - bitLength(bottom) - MANTISSA_BITS;
  // Now top / bottom / 2^shift has 63 to 65 bits; make it 64, or fewer for a denormal.
  for (;;) {
    const scaledTop = shift < 0 ? top << BigInt(-shift) : top;
    const scaledBottom = shift > 0 ? bottom << BigInt(shift) : bottom;
    if (scaledTop / scaledBottom >= 1n << BigInt(MANTISSA_BITS)) shift++;
    else if (scaledTop / scaledBottom < 1n << BigInt(MANTISSA_BITS - 1)) shift--;
    else break;
  }
  if (exponent + shift < EXPONENT_MIN) shift = EXPONENT_MIN - exponent;
  if (shift < 0) top <<= BigInt(-shift);
  else bottom <<= BigInt(shift);
  let mantissa = top / bottom;
  const twice = (top % bottom) * 2n;
  if (twice > bottom || (twice === bottom && (mantissa & 1n) === 1n)) mantissa++;
  const scale = exponent + shift;
  if (bitLength(mantissa) + scale > EXPONENT_MAX) return infinity(negative);
  return { mantissa: negative ? -mantissa : mantissa, exponent: scale, infinite: false };
}

const DECIMAL = /^([+-]?)(?:(\d+)(?:\.(\d*))?|\.(\d+))(?:[eE]([+-]?\d+))?$/;
const HEXADECIMAL =
  /^([+-]?)0[xX](?:([0-9a-fA-F]+)(?:\.([0-9a-fA-F]*))?|\.([0-9a-fA-F]+))(?:[pP]([+-]?\d+))?$/;
const INFINITE = /^([+-]?)inf(?:inity)?$/i;

/**
 * What strtold makes of the text.
 * @returns undefined for what Redis does not take: other text, blanks, NaN, an overflow, an underflow to zero
 */
export function parseFloat80(text: string): LongDouble | undefined {
  if (text.length === 0 || text.length >= FLOAT_CHARS_MAX) return undefined;
  const infinite = INFINITE.exec(text);
  if (infinite !== null) return infinity(infinite[1] === "-");
  const decimal = DECIMAL.exec(text);
  const match = decimal ?? HEXADECIMAL.exec(text);
  if (match === null) return undefined;
  const whole = match[2] ?? "";
  const fraction = match[3] ?? match[4] ?? "";
  const digits = (whole + fraction).replace(/^0+/, "");
  if (digits === "") return { mantissa: 0n, exponent: 0, infinite: false };
  const written = Number(match[5] ?? "0");
  const negative = match[1] === "-";
  let value: LongDouble;
  if (decimal !== null) {
    const power = written - fraction.length;
    if (power + digits.length > 5000) return undefined;
    if (power + digits.length < -5000) return undefined;
    const number = BigInt(digits) * (negative ? -1n : 1n);
    value =
      power >= 0
        ? round(number * 10n ** BigInt(power), 1n, 0)
        : round(number, 10n ** BigInt(-power), 0);
  } else {
    const power = written - 4 * fraction.length;
    if (power + 4 * digits.length > 20000 || power + 4 * digits.length < -20000) return undefined;
    value = round(BigInt("0x" + digits) * (negative ? -1n : 1n), 1n, power);
  }
  if (value.infinite || value.mantissa === 0n) return undefined;
  return value;
}

/** @returns undefined when the sum is not finite */
export function addFloats(a: LongDouble, b: LongDouble): LongDouble | undefined {
  if (a.infinite || b.infinite) return undefined;
  const exponent = Math.min(a.exponent, b.exponent);
  const sum =
    (a.mantissa << BigInt(a.exponent - exponent)) + (b.mantissa << BigInt(b.exponent - exponent));
  const rounded = round(sum, 1n, exponent);
  return rounded.infinite ? undefined : rounded;
}

/** "%.17Lf" without trailing zeros. */
export function formatFloat(value: LongDouble): string {
  const negative = value.mantissa < 0n;
  const mantissa = negative ? -value.mantissa : value.mantissa;
  let scaled: bigint;
  if (value.exponent >= 0) {
    scaled = (mantissa << BigInt(value.exponent)) * 10n ** 17n;
  } else {
    const bottom = 1n << BigInt(-value.exponent);
    const top = mantissa * 10n ** 17n;
    scaled = top / bottom;
    const twice = (top % bottom) * 2n;
    if (twice > bottom || (twice === bottom && (scaled & 1n) === 1n)) scaled++;
  }
  const digits = scaled.toString().padStart(18, "0");
  const whole = digits.slice(0, -17);
  const fraction = digits.slice(-17).replace(/0+$/, "");
  const text = fraction === "" ? whole : `${whole}.${fraction}`;
  if (text === "0") return "0";
  return negative ? `-${text}` : text;
}
