/**
 * Scales of a chart: the place of each value, and the values that get a label.
 *
 * Values are BigInt, of any size.
 */

// If half of the values share a tenth of a linear axis, it is made logarithmic.
const CROWDED = 10n;

const FEWEST = 3;

export function extremes(values) {
  return values.reduce(
    ([low, high], value) => [value < low ? value : low, value > high ? value : high],
    [values[0], values[0]],
  );
}

/** Return whether a few large values leave the others hardly any room on a linear axis from `low`. */
function isFlattened(values, low) {
  const inOrder = values.toSorted((left, right) => (left < right ? -1 : Number(left > right)));
  const high = inOrder.at(-1);
  const middle = inOrder[Math.floor((inOrder.length - 1) / 2)];
  return inOrder.length >= FEWEST && (middle - low) * CROWDED < high - low;
}

/** Return a scale that maps the values to the pixels from .. to; see `logarithmic` for `unit`. */
export function scaleOf(values, unit, from, to) {
  const [low, high] = extremes(values);
  const isLogarithmic = isFlattened(values, low);
  return isLogarithmic ? logarithmic(low, high, from, to, unit) : linear(low, high, from, to);
}

/** Return a scale that begins at 0, and ends at a tick if it is linear. */
export function scaleFromZero(values, unit, from, to, count) {
  const high = extremes(values)[1];
  return isFlattened(values, 0n)
    ? logarithmic(0n, high, from, to, unit)
    : linear(0n, roundedUp(high, count), from, to);
}

/** Return the linear scale from low .. high to from .. to. */
function linear(low, high, from, to) {
  const span = high - low || 1n;
  return {
    high,
    remark: "",
    at: (value) => placed(Number(((value - low) * 10_000n) / span) / 10_000, from, to),
    ticks(count) {
      const step = niceStep(high - low, count);
      const ticks = [];
      for (let tick = ((low + step - 1n) / step) * step; tick <= high; tick += step) {
        ticks.push(tick);
      }
      return ticks;
    },
  };
}

/**
 * Return the logarithmic scale from low .. high to from .. to.
 *
 * It uses the logarithm of 1 + value / unit, so that 0 has a place, too.
 */
function logarithmic(low, high, from, to, unit) {
  const log = (value) => logarithm(value + unit) - logarithm(unit);
  const span = log(high) - log(low) || 1;
  return {
    high,
    remark: " (logarithmic)",
    at: (value) => placed((log(value) - log(low)) / span, from, to),
    ticks(count) {
      const powers = [];
      // The label of 1 would touch that of 0.
      for (let power = low === 0n ? 10n * unit : unit; power <= high; power *= 10n) {
        if (power >= low) {
          powers.push(power);
        }
      }
      const every = Math.ceil(powers.length / (count + 1));
      const some = powers.filter((_, index) => (powers.length - 1 - index) % every === 0);
      if (low > 0n) {
        return some;
      }
      return [0n, ...some.filter((power) => power >= unit * 10n ** BigInt(every))];
    },
  };
}

const placed = (share, from, to) => Math.round((from + share * (to - from)) * 10) / 10;

/** Return the decimal logarithm of a BigInt of any size. */
function logarithm(value) {
  const digits = value.toString();
  const [leading, others] = [digits.slice(0, 15), digits.length - 15];
  return Math.log10(Number(leading)) + Math.max(others, 0);
}

/** Return the least value that is not below `high`, and at which a linear axis from 0 has a tick. */
function roundedUp(high, count) {
  const step = niceStep(high, count);
  return ((high + step - 1n) / step || 1n) * step;
}

/** Return 1, 2 or 5 times a power of ten, of which `count` or a few less make up `span`. */
function niceStep(span, count) {
  const rough = (span + BigInt(count) - 1n) / BigInt(count) || 1n;
  const power = 10n ** BigInt(rough.toString().length - 1);
  return [1n, 2n, 5n, 10n].map((times) => times * power).find((step) => step >= rough);
}
