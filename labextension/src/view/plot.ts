/** Quality against cost, with the Pareto front and the reader's limits; linked with the table both ways. */

import { AXES, marks, points, type Axis, type Point } from '../pareto';
import type { Row, Workload } from '../payload';
import { bytesText, significant, type Limits } from '../rows';
import { h, s, typeset, uniqueId } from './dom';

const [WIDTH, HEIGHT] = [640, 270];
const [LEFT, RIGHT, TOP, BOTTOM] = [58, 16, 12, 40];
const MOST_INTERVALS = 60;
const MOST_LABELS = 10;

interface Linked {
  readonly keeps: (row: Row) => boolean;
  readonly shows: (row: Row) => boolean;
  readonly picked: (row: Row) => boolean;
  readonly pointed: (row: Row | null) => void;
  readonly toggled: (row: Row) => void;
}

export class Plot {
  readonly node = h('div', { class: 'nbopt-Plot' });
  private readonly axes: readonly Axis[];
  private axis: Axis;
  private readonly circles = new Map<Row, SVGElement>();
  private readonly holder = h('div', { class: 'nbopt-PlotHolder' });

  constructor(
    private readonly workload: Workload,
    private limits: Limits,
    private readonly linked: Linked
  ) {
    this.axes = AXES.filter(axis => points(workload.rows, axis).length > 1);
    this.axis = this.axes[0] ?? (AXES[0] as Axis);
    if (this.axes.length > 1) {
      this.node.append(this.choice());
    }
    this.node.append(this.holder);
    this.draw();
  }

  /** Whether a workload has two rows that a plot could show. */
  static worthwhile(workload: Workload): boolean {
    return AXES.some(axis => points(workload.rows, axis).length > 1);
  }

  setLimits(limits: Limits): void {
    this.limits = limits;
    this.draw();
  }

  refresh(): void {
    for (const [row, circle] of this.circles) {
      circle.classList.toggle('nbopt-mod-out', !this.linked.keeps(row));
      circle.classList.toggle('nbopt-mod-hidden', !this.linked.shows(row));
      circle.classList.toggle('nbopt-mod-picked', this.linked.picked(row));
    }
  }

  point(row: Row | null): void {
    for (const [each, circle] of this.circles) {
      circle.classList.toggle('nbopt-mod-pointed', each === row);
    }
  }

  private choice(): HTMLElement {
    const id = uniqueId();
    const select = h('select', { id, class: 'nbopt-AxisChoice' });
    select.append(...this.axes.map(axis => h('option', { value: axis.name }, axis.name)));
    select.addEventListener('change', () => {
      this.axis = this.axes.find(axis => axis.name === select.value) ?? this.axis;
      this.draw();
    });
    return h('div', { class: 'nbopt-PlotHead' }, h('label', { for: id }, `${this.workload.metric || 'quality'} against`), select);
  }

  private draw(): void {
    const found = points(this.workload.rows, this.axis);
    this.circles.clear();
    if (found.length === 0) {
      this.holder.replaceChildren();
      return;
    }
    const scale = this.workload.points ? 100 : 1;
    const [low, high] = reach(found.map(each => Math.log(each.cost)), 0.08);
    const [bottom, top] = reach(found.map(each => each.quality * scale), 0.12);
    const x = (cost: number): number => LEFT + ((Math.log(cost) - low) / (high - low)) * (WIDTH - LEFT - RIGHT);
    const y = (quality: number): number => HEIGHT - BOTTOM - ((quality * scale - bottom) / (top - bottom)) * (HEIGHT - TOP - BOTTOM);
    const front = found.filter(each => each.front).sort((a, b) => a.cost - b.cost);
    const picture = s('svg', {
      class: 'nbopt-PlotPicture',
      viewBox: `0 0 ${WIDTH} ${HEIGHT}`,
      role: 'img',
      'aria-label': typeset(this.said(front, found.length))
    });
    picture.append(...this.grid(x, y, [low, high], [bottom, top], scale), ...this.drawLimits(x, y));
    const line = front.map((each, index) => `${index === 0 ? 'M' : 'L'}${round(x(each.cost))} ${round(y(each.quality))}`).join('');
    picture.append(s('path', { class: 'nbopt-Front', d: line }));
    if (found.length <= MOST_INTERVALS) {
      picture.append(...found.flatMap(each => intervals(each, this.axis, x, y)));
    }
    for (const each of found) {
      picture.append(this.circle(each, x(each.cost), y(each.quality)));
    }
    picture.append(...labels(front, x, y));
    this.holder.replaceChildren(picture);
    this.refresh();
  }

  private circle({ row, front }: Point, cx: number, cy: number): SVGElement {
    const kind = `nbopt-Point nbopt-tone-${row.tone}${front ? ' nbopt-mod-front' : ''}`;
    const circle = s('circle', { class: kind, cx: round(cx), cy: round(cy), r: front ? 5.5 : 4.5, 'data-run': row.name });
    const figures = ['quality', 'speedup', 'size'].map(name => row.figures[name]?.value ?? '-').join(', ');
    circle.append(s('title', {}, typeset(`${row.label} on ${row.runtime}: ${figures}`)));
    circle.addEventListener('mouseenter', () => this.linked.pointed(row));
    circle.addEventListener('mouseleave', () => this.linked.pointed(null));
    circle.addEventListener('click', () => this.linked.toggled(row));
    this.circles.set(row, circle);
    return circle;
  }

  private said(front: readonly Point[], count: number): string {
    const names = front.slice(0, MOST_LABELS).map(({ row }) => `${row.label} on ${row.runtime}`).join('; ');
    return `${count} runs, ${this.workload.metric || 'quality'} against ${this.axis.title}. On the front, cheapest first: ${names}.`;
  }

  private grid(
    x: (cost: number) => number,
    y: (quality: number) => number,
    [low, high]: readonly [number, number],
    [bottom, top]: readonly [number, number],
    scale: number
  ): SVGElement[] {
    const write = this.axis.name === 'latency' ? (cost: number) => `${significant(cost, 2)}x` : bytesText;
    const drawn: SVGElement[] = [];
    for (const cost of logMarks(Math.exp(low), Math.exp(high))) {
      const at = round(x(cost));
      drawn.push(s('path', { class: 'nbopt-Grid', d: `M${at} ${TOP}V${HEIGHT - BOTTOM}` }));
      drawn.push(s('text', { class: 'nbopt-Mark', x: at, y: HEIGHT - BOTTOM + 15, 'text-anchor': 'middle' }, typeset(write(cost))));
    }
    for (const quality of marks(bottom, top, 5)) {
      const at = round(y(quality / scale));
      drawn.push(s('path', { class: 'nbopt-Grid', d: `M${LEFT} ${at}H${WIDTH - RIGHT}` }));
      drawn.push(s('text', { class: 'nbopt-Mark', x: LEFT - 6, y: at + 4, 'text-anchor': 'end' }, typeset(significant(quality, 4))));
    }
    const title = `${this.axis.title} (logarithmic)`;
    drawn.push(s('text', { class: 'nbopt-AxisTitle', x: (LEFT + WIDTH - RIGHT) / 2, y: HEIGHT - 6, 'text-anchor': 'middle' }, title));
    return drawn;
  }

  /** Limits as dashed lines, where the axes have them. */
  private drawLimits(x: (cost: number) => number, y: (quality: number) => number): SVGElement[] {
    const drawn: SVGElement[] = [];
    const baseline = this.workload.rows.find(row => row.name === this.workload.baseline);
    const quality = baseline?.numbers['quality'];
    if (this.limits.drop !== null && baseline !== undefined && quality !== undefined) {
      const lost = baseline.bounded ? this.limits.drop : this.limits.drop * Math.abs(quality);
      const at = y(baseline.greaterIsBetter ? quality - lost : quality + lost);
      if (at > TOP && at < HEIGHT - BOTTOM) {
        drawn.push(s('path', { class: 'nbopt-LimitLine', d: `M${LEFT} ${round(at)}H${WIDTH - RIGHT}` }));
      }
    }
    if (this.axis.name === 'size' && this.limits.sizeBytes !== null) {
      drawn.push(s('path', { class: 'nbopt-LimitLine', d: `M${round(x(this.limits.sizeBytes))} ${TOP}V${HEIGHT - BOTTOM}` }));
    }
    return drawn;
  }
}

/** The 95% intervals of the paired differences: of quality, and of speed where that is the axis. */
function intervals({ row, cost, quality }: Point, axis: Axis, x: (cost: number) => number, y: (quality: number) => number): SVGElement[] {
  const drawn: SVGElement[] = [];
  const { quality_delta: delta, quality_delta_low: low, quality_delta_high: high, speedup_low: slow, speedup_high: fast } = row.numbers;
  const kind = `nbopt-Interval nbopt-tone-${row.tone}`;
  if (delta !== undefined && low !== undefined && high !== undefined && high > low) {
    const before = quality - delta;
    const [from, to] = [y(before + low), y(before + high)].map(at => round(Math.min(Math.max(at, TOP), HEIGHT - BOTTOM)));
    drawn.push(s('path', { class: kind, d: `M${round(x(cost))} ${from}V${to}` }));
  }
  if (axis.name === 'latency' && slow !== undefined && fast !== undefined && slow > 0 && fast > slow) {
    const [from, to] = [x(1 / fast), x(1 / slow)].map(at => round(Math.min(Math.max(at, LEFT), WIDTH - RIGHT)));
    drawn.push(s('path', { class: kind, d: `M${from} ${round(y(quality))}H${to}` }));
  }
  return drawn;
}

/** Names of the front's rows where they do not lie on each other. */
function labels(front: readonly Point[], x: (cost: number) => number, y: (quality: number) => number): SVGElement[] {
  const placed: { x: number; y: number }[] = [];
  const drawn: SVGElement[] = [];
  for (const each of front.slice(0, 50)) {
    const at = { x: x(each.cost), y: y(each.quality) };
    const free = placed.every(other => Math.abs(other.y - at.y) > 15 || Math.abs(other.x - at.x) > 150);
    if (free && placed.length < MOST_LABELS) {
      placed.push(at);
      const right = at.x > WIDTH - 190;
      const label = each.row.label.length > 30 ? `${each.row.label.slice(0, 29)}\u2026` : each.row.label;
      const place = { x: round(at.x + (right ? -9 : 9)), y: round(at.y + 15), 'text-anchor': right ? 'end' : 'start' };
      drawn.push(s('text', { class: 'nbopt-PointLabel', ...place }, label));
    }
  }
  return drawn;
}

function reach(values: readonly number[], margin: number): readonly [number, number] {
  let [low, high] = [Infinity, -Infinity];
  for (const value of values) {
    low = Math.min(low, value);
    high = Math.max(high, value);
  }
  const beyond = (high - low) * margin || Math.abs(high) * margin || 0.5;
  return [low - beyond, high + beyond];
}

function logMarks(low: number, high: number): number[] {
  const found: number[] = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)) && found.length < 200; power += 1) {
    found.push(...[1, 2, 5].map(each => Number((each * 10 ** power).toPrecision(3))).filter(each => each >= low && each <= high));
  }
  return found.length > 8 ? found.filter((_, index) => index % Math.ceil(found.length / 8) === 0) : found;
}

function round(value: number): number {
  return Math.round(value * 10) / 10;
}
