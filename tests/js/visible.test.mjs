// web/visible.js: the page shows what nobody sees, by the table that the broker has.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { isVisible, visibleName, visibleText } from "../../web/visible.js";

const source = readFileSync(new URL("../../base/printable.c", import.meta.url), "utf8");
const ranges = [...source.matchAll(/\{0x([0-9a-f]+), 0x([0-9a-f]+), PRINTABLE_(HIDDEN|FAINT)\}/g)].map(
  ([, first, last, kind]) => ({ first: parseInt(first, 16), last: parseInt(last, 16), kind }),
);

function kindOf(point) {
  if ((point & 0xfffe) === 0xfffe) return "HIDDEN";
  return ranges.find(({ first, last }) => point >= first && point <= last)?.kind ?? "SEEN";
}

test("the page has the broker's table", () => {
  assert.ok(ranges.length > 25);
  for (let point = 0; point <= 0x10ffff; point++) {
    const character = String.fromCodePoint(point);
    const kind = kindOf(point);
    const label = `U+${point.toString(16)} is ${kind}`;
    const bare = (text) => text.replace(/^\u2068(.*)\u2069$/su, "$1");
    assert.equal(bare(visibleName(character)) === character, kind === "SEEN", label);
    assert.equal(isVisible(character), kind !== "HIDDEN", label);
    const kept = kind !== "HIDDEN" || [0x9, 0xa, 0x2068, 0x2069].includes(point);
    assert.equal(visibleText(character) === character, kept, label);
  }
});

test("what is hidden is named", () => {
  assert.equal(visibleName("bob\u202e\u{e0041}\ufeff"), "bob\\u{202e}\\u{e0041}\\u{feff}");
  assert.equal(visibleName("a\u200db\nc"), "a\\u{200d}b\\u{a}c");
  assert.equal(visibleText("a\u200db\nc\td\u202ee\u0007"), "a\u200db\nc\td\\u{202e}e\\u{7}");
  assert.equal(visibleName("\ud800x"), "\\u{d800}x");
  assert.equal(visibleName("userSever_8080"), "userSever_8080");
  assert.equal(visibleName("王 🙂"), "王 🙂");
});

test("letters from right to left stay within the name", () => {
  assert.equal(visibleName("אב"), "\u2068אב\u2069");
  assert.equal(visibleName("אב\u2069\u202e"), "\u2068אב\\u{2069}\\u{202e}\u2069");
});
