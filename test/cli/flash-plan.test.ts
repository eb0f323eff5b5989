/** What flashing decides before it writes: which board, which room, what may be lost. */
import { describe, expect, test } from "vitest";
import { imageName, mismatch, planFlash } from "../../client/cli/flash-plan.js";
import type { BoardFacts, BuiltFirmware, FlashPlan } from "../../client/cli/flash-plan.js";

const BYTES = 80_000;
const JOURNALS = 8_000;
const firmware: BuiltFirmware = {
  name: "esp32",
  board: "ESP32",
  variables: 16383,
  variableBytes: 14,
  consoleBaud: 115200,
  watchdogSeconds: 5,
  images: 2,
  journalBytes: JOURNALS,
  loader: "x".repeat(300),
};
const content = { bytes: BYTES, crc: 0x0badcafe };
const blank: BoardFacts = {
  board: "ESP32",
  version: "2v29",
  variables: 16383,
  variableBytes: 14,
  freeBytes: 900_000,
  trashBytes: 0,
  files: [],
  boots: undefined,
};
const OLD = imageName(7, 0x11111111);
const OLDER = imageName(6, 0x22222222);
const journals = [
  { name: "dyad.0", bytes: 4000 },
  { name: "dyad.1", bytes: 4000 },
];
const flashed: BoardFacts = {
  ...blank,
  files: [{ name: ".bootcde", bytes: 300 }, { name: OLD, bytes: BYTES }, ...journals],
  boots: OLD,
};

function planned(facts: BoardFacts, of: BuiltFirmware = firmware, what = content): FlashPlan {
  const plan = planFlash(of, what, facts);
  if (typeof plan === "string") throw new Error(plan);
  return plan;
}

describe("a board with room for two images", () => {
  test("a blank one gets the first image and the loader; nothing can be lost", () => {
    expect(planned(blank)).toEqual({
      image: "fw0001-0badcafe",
      isThere: false,
      erase: [],
      compact: false,
      loader: true,
      keepsOld: true,
      loses: false,
    });
  });

  test("the image that boots is kept, older and broken ones go", () => {
    const broken = imageName(8, 0x33333333);
    const files = [...flashed.files, { name: OLDER, bytes: BYTES }, { name: broken, bytes: BYTES }];
    const plan = planned({ ...flashed, files });
    expect(plan.erase.sort()).toEqual([OLDER, broken]);
    expect(plan.image).toBe("fw0009-0badcafe");
    expect(plan).toMatchObject({ compact: false, loader: false, keepsOld: true, loses: false });
  });

  test("where the room of erased files is needed it says what that may lose", () => {
    const plan = planned({ ...flashed, freeBytes: 50_000, trashBytes: 50_000 });
    expect(plan).toMatchObject({ compact: true, keepsOld: true, loses: true, erase: [] });
  });

  test("where even that is too little the old one goes first", () => {
    const plan = planned({ ...flashed, freeBytes: 5_000 });
    expect(plan).toMatchObject({ compact: true, keepsOld: false, loses: true, erase: [OLD] });
  });

  test("the same firmware is not written again", () => {
    const same = { bytes: BYTES, crc: 0x11111111 };
    expect(planned(flashed, firmware, same)).toMatchObject({
      isThere: true,
      image: OLD,
      erase: [],
    });
  });

  test("a firmware that lies in .bootcde itself is kept until the loader replaces it", () => {
    const files = [{ name: ".bootcde", bytes: BYTES }, ...journals];
    const plan = planned({ ...blank, files, boots: ".bootcde" });
    expect(plan).toMatchObject({ image: "fw0001-0badcafe", loader: true, keepsOld: true });
  });
});

describe("a board with room for one", () => {
  const small = { ...firmware, images: 1 };

  test("a blank one loses nothing", () => {
    expect(planned({ ...blank, freeBytes: 90_000 }, small)).toMatchObject({
      image: ".bootcde",
      erase: [],
      loader: false,
      compact: false,
      loses: false,
    });
  });

  test("the old firmware goes before the new one comes, and that is said", () => {
    const files = [{ name: ".bootcde", bytes: BYTES }, ...journals];
    const plan = planned({ ...blank, files, boots: ".bootcde", freeBytes: 10_000 }, small);
    expect(plan).toMatchObject({
      erase: [".bootcde"],
      compact: true,
      keepsOld: false,
      loses: true,
    });
  });

  test("no room at all: how much is needed and how much there is", () => {
    expect(planFlash(small, content, { ...blank, freeBytes: 60_000 })).toBe(
      `${BYTES + 32 + JOURNALS} bytes of Storage are needed, and 60000 are free or can be made so`,
    );
  });
});

describe("the wrong board", () => {
  test("another name, too few variables, variables of another size", () => {
    expect(mismatch(firmware, blank)).toBe("");
    expect(mismatch(firmware, { ...blank, board: "PICO_R1_3" })).toMatch(/PICO_R1_3.*ESP32/);
    expect(mismatch(firmware, { ...blank, variables: 8190 })).toMatch(/8190 variables.*16383/);
    expect(mismatch(firmware, { ...blank, variableBytes: 16 })).toMatch(/16 bytes.*14/);
    const any = { ...firmware, board: undefined, variables: 0 };
    expect(mismatch(any, { ...blank, board: "LINUX", variables: 4096 })).toBe("");
  });
});
