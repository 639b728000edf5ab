/**
 * The table of one workload. Beyond a hundred or so rows only those in view are in the page, all of one height, so that
 * thousands paint and sort at once; a screen reader is told of the others by aria-rowcount.
 */

import type { Row, Workload } from '../payload';
import { broken, demands, matches, NO_LIMITS, sorted, type Limits, type Order } from '../rows';
import { columnsOf, type Column } from './columns';
import { h, hidden } from './dom';

const MOST_UNWINDOWED = 120;
const ROW_PIXELS = 29;
const BEYOND = 12;
const MOST_PICKED = 2;
const STEPS: Readonly<Record<string, number>> = { ArrowDown: 1, ArrowUp: -1 };

export interface Heard {
  /** Rows in view or their qualification changed. */
  readonly changed: () => void;
  readonly picked: (rows: readonly Row[]) => void;
  readonly pointed: (row: Row | null) => void;
}

export class Table {
  readonly node: HTMLElement;
  readonly columns: readonly Column[];
  private readonly table = h('table', { class: 'nbopt-Table' });
  private readonly head = h('thead');
  private readonly body = h('tbody');
  private readonly made = new Map<Row, HTMLTableRowElement>();
  private readonly windowed: boolean;
  private readonly chosen: Set<string>;
  private rows: readonly Row[] = [];
  private kept = new Set<Row>();
  private order: Order | null = null;
  private filter = '';
  private limits: Limits = NO_LIMITS;
  private picks: Row[] = [];
  private first = -1;
  private last = -1;
  private waiting = false;

  constructor(
    private readonly workload: Workload,
    private readonly heard: Heard
  ) {
    this.columns = columnsOf(workload);
    this.chosen = new Set(this.columns.filter(column => column.shown).map(column => column.id));
    this.windowed = workload.rows.length > MOST_UNWINDOWED;
    const title = `Runs of ${workload.name || 'this workload'}`;
    this.table.append(h('caption', { class: 'nbopt-Hidden' }, title), this.head, this.body);
    this.node = h('div', { class: 'nbopt-Scroller', tabindex: 0, role: 'region', 'aria-label': title }, this.table);
    if (this.windowed) {
      this.node.classList.add('nbopt-mod-windowed');
      this.node.addEventListener('scroll', () => this.later(), { passive: true });
    }
    this.listen();
    this.drawHead();
    this.arrange();
  }

  /** Rows in view by the filter, and of those the ones that keep within the limits. */
  get counts(): { all: number; shown: number; kept: number } {
    return { all: this.workload.rows.length, shown: this.rows.length, kept: this.kept.size };
  }

  get picked(): readonly Row[] {
    return this.picks;
  }

  keeps(row: Row): boolean {
    return this.kept.has(row);
  }

  shows(row: Row): boolean {
    return this.rows.includes(row);
  }

  setFilter(filter: string): void {
    this.filter = filter;
    this.arrange();
  }

  setLimits(limits: Limits): void {
    this.limits = limits;
    this.judge();
    for (const [row, element] of this.made) {
      this.mark(row, element);
    }
    this.heard.changed();
  }

  setShown(id: string, shown: boolean): void {
    if (shown) {
      this.chosen.add(id);
    } else {
      this.chosen.delete(id);
    }
    this.made.clear();
    this.drawHead();
    this.draw(true);
  }

  isShown(id: string): boolean {
    return this.chosen.has(id);
  }

  /** Pick a row to be compared, or put it back; of three the first is put back. */
  toggle(row: Row): void {
    this.picks = this.picks.includes(row) ? this.picks.filter(each => each !== row) : [...this.picks, row].slice(-MOST_PICKED);
    for (const [each, element] of this.made) {
      this.mark(each, element);
    }
    this.heard.picked(this.picks);
  }

  unpick(): void {
    this.picks.slice().forEach(row => this.toggle(row));
  }

  point(row: Row | null): void {
    for (const [each, element] of this.made) {
      element.classList.toggle('nbopt-mod-pointed', each === row);
    }
  }

  reveal(row: Row): void {
    const index = this.rows.indexOf(row);
    if (index >= 0 && this.windowed) {
      this.node.scrollTop = Math.max(0, index * ROW_PIXELS - this.node.clientHeight / 2);
      this.draw(true);
    }
  }

  /** Draw again, now that the node has a height. */
  settle(): void {
    this.draw(true);
  }

  private get visible(): readonly Column[] {
    return this.columns.filter(column => this.chosen.has(column.id));
  }

  private arrange(): void {
    const shown = this.workload.rows.filter(row => matches(row, this.filter));
    const column = this.columns.find(each => each.id === this.order?.column);
    this.rows = sorted(shown, column ? this.order : null, column ? column.key : () => null, this.workload.baseline);
    this.judge();
    this.draw(true);
    this.heard.changed();
  }

  private judge(): void {
    this.kept = new Set(this.rows.filter(row => !row.failed && broken(row, this.limits).length === 0));
  }

  private drawHead(): void {
    const pick = h('th', { class: 'nbopt-PickHead', scope: 'col', title: 'Pick two rows to compare them' }, hidden('Compare'));
    const heads = this.visible.map(column => {
      const sorting = this.order?.column === column.id ? (this.order.descending ? 'descending' : 'ascending') : 'none';
      const arrow = { none: '', ascending: ' \u25b2', descending: ' \u25bc' }[sorting];
      const button = h('button', { type: 'button', class: 'nbopt-Sort', 'data-column': column.id, title: `Sort by ${column.title}` });
      button.append(column.title, h('span', { class: 'nbopt-Arrow', 'aria-hidden': 'true' }, arrow));
      const classes = column.right ? 'nbopt-Right' : '';
      return h('th', { scope: 'col', class: classes, 'aria-sort': sorting }, button, ...legend(column));
    });
    const columns = h('colgroup', {}, h('col', { style: 'width:30px' }));
    columns.append(...this.visible.map(column => h('col', { style: `width:${column.width}px` })));
    this.table.querySelector('colgroup')?.remove();
    this.table.insertBefore(columns, this.head);
    if (this.windowed) {
      // Rows come and go; widths must not.
      this.table.style.width = `${this.visible.reduce((all, column) => all + column.width, 30)}px`;
    }
    this.head.replaceChildren(h('tr', {}, pick, ...heads));
  }

  private draw(anew: boolean): void {
    let [first, last] = [0, this.rows.length];
    if (this.windowed) {
      const height = this.node.clientHeight || 440;
      first = Math.max(0, Math.floor(this.node.scrollTop / ROW_PIXELS) - BEYOND);
      last = Math.min(this.rows.length, Math.ceil((this.node.scrollTop + height) / ROW_PIXELS) + BEYOND);
      first = Math.min(first, Math.max(0, last - 1));
    }
    if (!anew && first === this.first && last === this.last) {
      return;
    }
    [this.first, this.last] = [first, last];
    const drawn = this.rows.slice(first, last).map((row, index) => {
      const element = this.made.get(row) ?? this.make(row);
      element.setAttribute('aria-rowindex', String(first + index + 2));
      return element;
    });
    const above = first > 0 ? [this.space(first)] : [];
    const below = last < this.rows.length ? [this.space(this.rows.length - last)] : [];
    const none = this.rows.length === 0 ? [this.empty()] : [];
    this.body.replaceChildren(...above, ...drawn, ...below, ...none);
    this.table.setAttribute('aria-rowcount', String(this.rows.length + 1));
  }

  private space(rows: number): HTMLTableRowElement {
    const cell = h('td', { colspan: this.visible.length + 1, style: `height:${rows * ROW_PIXELS}px;padding:0` });
    return h('tr', { class: 'nbopt-Space', 'aria-hidden': 'true' }, cell);
  }

  private empty(): HTMLTableRowElement {
    return h('tr', {}, h('td', { colspan: this.visible.length + 1, class: 'nbopt-Muted' }, 'No row has these words.'));
  }

  private make(row: Row): HTMLTableRowElement {
    const box = h('input', { type: 'checkbox', class: 'nbopt-Pick', 'aria-label': `Compare ${row.name}` });
    const element = h('tr', { class: 'nbopt-Row' }, h('td', { class: 'nbopt-PickCell' }, box));
    const columns = this.visible;
    let span = 0;
    for (const [index, column] of columns.entries()) {
      if (span > 0) {
        break;
      }
      // What failed says why across the columns that it has no figures for.
      if (row.failed && column.id !== 'recipe' && column.id !== 'runtime') {
        span = columns.length - index;
        const marks = row.notes.map(note => ` [${note}]`).join('');
        const reason = `failed: ${row.reason || 'no reason was recorded'}${marks}`;
        element.append(h('td', { colspan: span, class: 'nbopt-Failed', title: row.reason }, reason));
      } else {
        element.append(h(column.id === 'recipe' ? 'th' : 'td', cellAttributes(column), ...column.cell(row)));
      }
    }
    this.made.set(row, element);
    this.mark(row, element);
    return element;
  }

  private mark(row: Row, element: HTMLTableRowElement): void {
    const why = row.failed || !demands(this.limits) ? [] : broken(row, this.limits);
    element.classList.toggle('nbopt-mod-failed', row.failed);
    element.classList.toggle('nbopt-mod-best', row.name === this.workload.best && row.name !== this.workload.baseline);
    element.classList.toggle('nbopt-mod-picked', this.picks.includes(row));
    element.classList.toggle('nbopt-mod-out', why.length > 0);
    element.title = why.length > 0 ? `Does not qualify: ${why.join(', ')}` : '';
    const said = element.querySelector('.nbopt-Why');
    const heading = element.querySelector('th');
    said?.remove();
    if (why.length > 0 && heading !== null) {
      const words = hidden(` (does not qualify: ${why.join(', ')})`);
      words.classList.add('nbopt-Why');
      heading.append(words);
    }
    const box = element.querySelector<HTMLInputElement>('.nbopt-Pick');
    if (box !== null) {
      box.checked = this.picks.includes(row);
    }
  }

  private rowOf(target: EventTarget | null): Row | null {
    const element = target instanceof Element ? target.closest('tr') : null;
    for (const [row, each] of this.made) {
      if (each === element) {
        return row;
      }
    }
    return null;
  }

  private listen(): void {
    this.head.addEventListener('click', event => {
      const button = event.target instanceof Element ? event.target.closest('button') : null;
      const column = this.columns.find(each => each.id === button?.dataset['column']);
      if (column !== undefined) {
        this.sortBy(column);
      }
    });
    this.body.addEventListener('change', event => {
      const row = this.rowOf(event.target);
      if (row !== null) {
        this.toggle(row);
      }
    });
    this.body.addEventListener('mouseover', event => {
      const row = this.rowOf(event.target);
      this.point(row);
      this.heard.pointed(row);
    });
    this.body.addEventListener('mouseleave', () => {
      this.point(null);
      this.heard.pointed(null);
    });
    this.body.addEventListener('keydown', event => this.step(event));
  }

  /** A first click puts the best on top, a second the worst, a third the rows as they came. */
  private sortBy(column: Column): void {
    const before = this.order;
    if (before?.column !== column.id) {
      this.order = { column: column.id, descending: column.largestFirst };
    } else if (before.descending === column.largestFirst) {
      this.order = { column: column.id, descending: !column.largestFirst };
    } else {
      this.order = null;
    }
    this.drawHead();
    this.node.scrollTop = 0;
    this.arrange();
    this.head.querySelector<HTMLElement>(`[data-column="${column.id}"]`)?.focus();
  }

  /** The arrows go from one row's box to the next. */
  private step(event: KeyboardEvent): void {
    const by = STEPS[event.key];
    const row = this.rowOf(event.target);
    if (by === undefined || row === null) {
      return;
    }
    const next = this.rows[this.rows.indexOf(row) + by];
    if (next !== undefined) {
      event.preventDefault();
      if (!this.made.get(next)?.isConnected) {
        this.reveal(next);
      }
      this.made.get(next)?.querySelector<HTMLElement>('.nbopt-Pick')?.focus();
    }
  }

  private later(): void {
    if (!this.waiting) {
      this.waiting = true;
      requestAnimationFrame(() => {
        this.waiting = false;
        this.draw(false);
      });
    }
  }
}

function cellAttributes(column: Column): Record<string, string> {
  const attributes: Record<string, string> = { class: `nbopt-Cell nbopt-Cell-${column.id}${column.right ? ' nbopt-Right' : ''}` };
  if (column.id === 'recipe') {
    attributes['scope'] = 'row';
  }
  return attributes;
}

/** The key to a column's colours; each cell reads its parts out itself. */
function legend(column: Column): HTMLElement[] {
  const entries = (column.legend ?? []).map(([kind, word]) => h('span', { class: `nbopt-LegendEntry ${kind}` }, word));
  return entries.length === 0 ? [] : [h('span', { class: 'nbopt-Legend', 'aria-hidden': 'true' }, ...entries)];
}
