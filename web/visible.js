// What can't be seen in a text is shown: it makes one name look like another, or turns a line around. The same table as
// base/printable.c, which a test compares.
const hidden =
  "\\0-\\x1f\\x7f-\\x9f\\xad\\u034f\\u061c\\u115f\\u1160\\u17b4\\u17b5\\u200b\\u200e\\u200f\\u2028-\\u202e\\u2060-\\u206f" +
  "\\u3164\\ud800-\\udfff\\ufeff\\uffa0\\ufff0-\\ufffb\\u{1bca0}-\\u{1bca3}\\u{1d173}-\\u{1d17a}\\u{e0000}-\\u{e00ff}" +
  "\\u{e01f0}-\\u{e0fff}\\p{Noncharacter_Code_Point}";
const faint =
  "\\xa0\\u1680\\u180b-\\u180f\\u2000-\\u200a\\u200c\\u200d\\u202f\\u205f\\u2800\\u3000\\ufe00-\\ufe0f" +
  "\\u{13430}-\\u{13440}\\u{e0100}-\\u{e01ef}";

const inNames = new RegExp(`[${hidden}${faint}]`, "gu");
const anyHidden = new RegExp(`[${hidden}]`, "u");
// Lines and tabs belong to a text; the isolates are what visibleName() puts around names, and turn nothing around.
const inTexts = new RegExp(`(?![\\n\\t\\u2068\\u2069])[${hidden}]`, "gu");
const rightToLeft = /[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufeff\u{10800}-\u{10fff}\u{1e800}-\u{1efff}]/u;

function escape(character) {
  return `\\u{${character.codePointAt(0).toString(16)}}`;
}

export function isVisible(text) {
  return !anyHidden.test(text);
}

// For a name or another short word inside of a sentence. Letters that run from right to left stay within it.
export function visibleName(text) {
  const escaped = text.replace(inNames, escape);
  return rightToLeft.test(escaped) ? `\u2068${escaped}\u2069` : escaped;
}

// For a text that others wrote, in an element of its own.
export function visibleText(text) {
  return text.replace(inTexts, escape);
}
