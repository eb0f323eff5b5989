/**
 * A bundle as Espruino keeps it best: reserved words and operators as one byte each, texts raw. It is shorter by a
 * sixth, needs no lexing of words when it runs, and its texts stay in flash instead of being built in memory.
 *
 *     return a===void 0?"x":!0   ->   [RETURN] a [===] [UNDEFINED] ? [STRING8] 1 x : [TRUE]
 *
 * The numbers are the engine's token ids (its src/jslex.h), which it promises not to renumber, because its own tools
 * do the same with them. What the engine's tools leave alone is left alone here too: identifiers, regular expressions,
 * numbers whose text is shorter.
 */
import { tokenizer } from "acorn";

/** Operators and reserved words in the order of the engine's ids. */
const TOKENS = [
  "==", "===", "!=", "!==", "<=", "<<", "<<=", ">=", ">>", ">>>", ">>=", ">>>=", "+=", "-=", "++", "--", "*=", "/=",
  "%=", "&=", "&&", "|=", "||", "^=", "=>", "if", "else", "do", "while", "for", "break", "continue", "function", "return",
  "var", "let", "const", "this", "throw", "try", "catch", "finally", "true", "false", "null", "undefined", "new", "in",
  "instanceof", "switch", "case", "default", "delete", "typeof", "void", "debugger", "class", "extends", "super", "static",
  "of",
]; // prettier-ignore
/** Id of the first of them. */
const FIRST_TOKEN = 138;
const IDS = new Map(TOKENS.map((word, i) => [word, FIRST_TOKEN + i]));
/** Ten ids behind the last word are kept free by the engine for words to come. */
const NULLISH = IDS.get("of") + 10;
IDS.set("??", NULLISH);
const STRING8 = NULLISH + 1;
const STRING16 = NULLISH + 2;
const INT8 = NULLISH + 4;
const INT16 = NULLISH + 5;

const WORD = 1;
const REGEX = 2;

/** Tokens of the text as { kind, text, value }; kind as acorn has it. */
function tokensOf(text) {
  const tokens = [];
  for (const token of tokenizer(text, { ecmaVersion: 2020 })) {
    const { label } = token.type;
    if (label === "`" || label === "template")
      throw new Error("a template literal in a bundle that is to be tokenised");
    tokens.push({ label, text: text.slice(token.start, token.end), value: token.value });
  }
  return tokens;
}

/** `void 0`, `!0` and `!1` are how a minifier spells words that are one byte here. */
function spelledOut(tokens) {
  const out = [];
  for (let i = 0; i < tokens.length; i++) {
    const pair = tokens[i].text + " " + (tokens[i + 1]?.text ?? "");
    const word = { "void 0": "undefined", "! 0": "true", "! 1": "false" }[pair];
    if (word !== undefined) i++;
    out.push(word === undefined ? tokens[i] : { label: "name", text: word, value: word });
  }
  return out;
}

function stringBytes(value) {
  const bytes = Buffer.from(value, "latin1");
  if (bytes.toString("latin1") !== value)
    throw new Error(`a text beyond latin1 in the bundle: ${JSON.stringify(value)}`);
  if (bytes.length === 0) return Buffer.from('""');
  return Buffer.concat([
    bytes.length < 256
      ? Buffer.from([STRING8, bytes.length])
      : Buffer.from([STRING16, bytes.length & 255, bytes.length >> 8]),
    bytes,
  ]);
}

/** @returns the shorter of the number's text and its raw form */
function numberBytes({ text, value }) {
  const plain = Buffer.from(text);
  if (!Number.isInteger(value) || Object.is(value, -0)) return plain;
  if (value >= 0 && value < 128 && plain.length > 2) return Buffer.from([INT8, value]);
  if (value >= 0 && value < 32768 && plain.length > 3)
    return Buffer.from([INT16, value & 255, value >> 8]);
  return plain;
}

/**
 * @param text a minified bundle, ASCII, without template literals
 * @returns its bytes as the engine's Storage is to hold them
 */
export function tokenise(text) {
  const parts = [];
  let before = 0;
  let beforeText = "";
  for (const token of spelledOut(tokensOf(text))) {
    let bytes;
    let kind = 0;
    if (token.label === "string") bytes = stringBytes(token.value);
    else if (token.label === "num") bytes = numberBytes(token);
    else if (token.label === "regexp") bytes = Buffer.from(token.text);
    else if (IDS.has(token.text)) bytes = Buffer.from([IDS.get(token.text)]);
    else bytes = Buffer.from(token.text, "latin1");
    if (token.label === "regexp") kind = REGEX;
    else if (bytes[0] < 128 && /[\w$]$/.test(bytes.toString("latin1"))) kind = WORD;
    const signs = (token.text === "-" || token.text === "+") && beforeText === token.text;
    const slashes =
      (kind === REGEX && beforeText === "/") ||
      (before === REGEX && (token.text === "/" || kind === WORD));
    if ((before === WORD && kind === WORD) || signs || slashes) parts.push(Buffer.from(" "));
    parts.push(bytes);
    before = kind;
    beforeText = token.text;
  }
  return Buffer.concat(parts);
}
