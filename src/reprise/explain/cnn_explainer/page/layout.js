/** Where the columns stand. Pure arithmetic on sizes, so that it can be read and tested by itself. */

export const HEADER = 60; // pixels above the first neuron, for the name and size of the layer
const LEGEND = 44; // below the last, for the legends
const ROW_GAP = 8;
const MARGIN = 10; // left and right of all columns
const OUTPUT = 148; // width of class names, bars and values; less on narrow screens
const OUTPUT_NARROW = 104;
const NARROW = 480;
const WIDEST = 760; // of an elastic view, both columns included
const MAPS_AT_FULL_SIZE = 12; // beyond as many maps in a column they are drawn smaller

/**
 * @param {Array<{ maps: number, kind: "maps" | "strip" | "output" }>} columns as drawn
 * @param {number} available width in pixels
 * @param {number | null} opened a column that is to slide away from the one before it
 * @returns {{ width, height, cell, bottom, columns: Array<{ x, width, pitch, aside, rows: Array<{ y, height }> }> }}
 */
export function layOut(columns, available, opened) {
  const most = Math.max(1, ...columns.filter(({ kind }) => kind === "maps").map(({ maps }) => maps));
  const inner = columns.length - 1;
  const output = available < NARROW ? OUTPUT_NARROW : OUTPUT;
  const room = (available - output - 2 * MARGIN) / inner; // of one column and the gap behind it
  const cell = Math.round(Math.min(most > MAPS_AT_FULL_SIZE ? 30 : 42, Math.max(26, room * 0.5)));
  const gap = Math.min(90, Math.max(18, room - cell));
  const outputs = columns.at(-1).maps;
  const body = Math.max(most * (cell + ROW_GAP), outputs * 24, 6 * (cell + ROW_GAP));
  const natural = inner * (cell + gap) + output + 2 * MARGIN;
  const start = MARGIN + Math.max(0, (available - natural) / 2);

  const placed = columns.map(({ maps, kind }, index) => ({
    x: start + index * (cell + gap),
    width: kind === "output" ? output : cell,
    pitch: cell + gap,
    aside: opened !== null && index !== opened && index !== opened - 1,
    rows: rowsOf(maps, kind, cell, body),
  }));
  if (opened !== null) spread(placed, opened, available);
  return {
    width: opened !== null ? available : Math.max(available, Math.ceil(natural)),
    height: HEADER + body + LEGEND,
    cell,
    bottom: HEADER + body,
    columns: placed,
  };
}

function rowsOf(maps, kind, cell, body) {
  if (kind === "strip") return [{ y: HEADER, height: body - ROW_GAP }];
  const step = kind === "output" ? Math.min(48, (body - ROW_GAP) / maps) : cell + ROW_GAP;
  const first = HEADER + Math.max(0, body - maps * step) / 2;
  return Array.from({ length: maps }, (_, row) => ({
    y: first + row * step,
    height: kind === "output" ? step : cell,
  }));
}

/** Push a column and all behind it away from those before, and centre the room between them. */
function spread(placed, opened, available) {
  const [before, after] = [placed[opened - 1], placed[opened]];
  const whole = Math.min(available - 2 * MARGIN, WIDEST);
  const left = (available - whole) / 2;
  const [shiftLeft, shiftRight] = [left - before.x, left + whole - after.width - after.x];
  placed.forEach((column, index) => {
    column.x += index < opened ? shiftLeft : shiftRight;
  });
}

/** The middle of the right or left side of a row of a column. */
export function port(layout, column, row, side, share = 0.5) {
  const place = layout.columns[column];
  const { y, height } = place.rows[Math.min(row, place.rows.length - 1)];
  return { x: place.x + (side === "right" ? place.width : 0), y: y + height * share };
}
