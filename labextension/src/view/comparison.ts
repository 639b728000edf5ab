/** A whole comparison: for each workload its sentence, its table, the limits, the plot, and two rows compared. */

import type { Part, Payload, Row, Workload } from '../payload';
import { NO_LIMITS } from '../rows';
import { comparePanel } from './compare';
import { h, typeset, uniqueId } from './dom';
import { keepKeys } from './keys';
import { LimitSliders } from './limits';
import { Plot } from './plot';
import { Table } from './table';

const FEWEST_FOR_PLOT = 4;
const MOST_FOR_OPEN_PLOT = 400;
const FEWEST_FOR_FILTER = 5;

export class ComparisonView {
  readonly node = h('div', { class: 'nbopt-Comparison' });
  private readonly sections: WorkloadView[];

  constructor(payload: Payload) {
    keepKeys(this.node);
    this.sections = payload.workloads.map(workload => new WorkloadView(workload));
    this.node.append(...this.sections.map(section => section.node));
    if (payload.workloads.length === 0) {
      this.node.append(h('p', {}, 'No runs yet.'));
    }
    if (payload.leftOut.length > 0) {
      const words = `Left out to keep the notebook small: ${payload.leftOut.join(', ')}. cmp.frame() has all figures.`;
      this.node.append(h('p', { class: 'nbopt-Muted nbopt-Small' }, words));
    }
  }

  /** Draw what depends on sizes, once the node is in the page. */
  settle(): void {
    this.sections.forEach(section => section.settle());
  }
}

class WorkloadView {
  readonly node = h('section', { class: 'nbopt-Workload' });
  private readonly table: Table;
  private readonly counted = h('span', { class: 'nbopt-Count', role: 'status' });
  private readonly compared = h('div');
  private plot: Plot | null = null;
  private limits = NO_LIMITS;

  constructor(private readonly workload: Workload) {
    // The table tells of its rows while it is made, before there is anyone to hear it.
    let ready = false;
    this.table = new Table(workload, {
      changed: () => ready && this.changed(),
      picked: rows => this.picked(rows),
      pointed: row => this.plot?.point(row)
    });
    ready = true;
    const strong = sentence('nbopt-Strong', workload.strong);
    strong.setAttribute('role', 'heading');
    strong.setAttribute('aria-level', '3');
    this.node.append(strong, sentence('nbopt-Second', workload.second));
    this.node.append(h('p', { class: 'nbopt-Conditions' }, typeset(workload.conditions)));
    this.node.append(this.controls(), this.table.node, this.compared, ...this.notes(), ...this.next(), ...this.plotted());
    this.changed();
  }

  settle(): void {
    this.table.settle();
  }

  private controls(): HTMLElement {
    const bar = h('div', { class: 'nbopt-Controls' });
    if (this.workload.rows.length >= FEWEST_FOR_FILTER) {
      const filter = h('input', {
        type: 'search',
        class: 'nbopt-Filter',
        placeholder: 'Filter: int8 -failed',
        'aria-label': 'Filter rows by words; a word after a minus must not be there'
      });
      filter.addEventListener('input', () => this.table.setFilter(filter.value));
      bar.append(filter);
    }
    const sliders = new LimitSliders(this.workload, limits => {
      this.limits = limits;
      this.table.setLimits(limits);
      this.plot?.setLimits(limits);
    });
    bar.append(sliders.node, this.columns(), this.counted);
    return bar;
  }

  private columns(): HTMLElement {
    const list = h('div', { class: 'nbopt-ColumnList', role: 'group', 'aria-label': 'Columns' });
    for (const column of this.table.columns.filter(each => each.id !== 'recipe')) {
      const id = uniqueId();
      const box = h('input', { type: 'checkbox', id, 'data-column': column.id });
      box.checked = this.table.isShown(column.id);
      box.addEventListener('change', () => this.table.setShown(column.id, box.checked));
      list.append(h('div', {}, box, h('label', { for: id }, column.title)));
    }
    return h('details', { class: 'nbopt-Columns' }, h('summary', {}, 'Columns'), list);
  }

  private changed(): void {
    const { all, shown, kept } = this.table.counts;
    const within = this.limits.drop ?? this.limits.latencyMs ?? this.limits.sizeBytes;
    const words = [shown < all ? `${shown} of ${all} rows` : `${all} ${all === 1 ? 'row' : 'rows'}`];
    if (within !== null) {
      words.push(`${kept} ${kept === 1 ? 'qualifies' : 'qualify'}`);
    }
    this.counted.textContent = words.join(', ');
    this.plot?.refresh();
  }

  private picked(rows: readonly Row[]): void {
    const panel = rows.length > 0 ? [comparePanel(rows, this.workload.sizeUnit, () => this.table.unpick())] : [];
    this.compared.replaceChildren(...panel);
    this.plot?.refresh();
  }

  private notes(): HTMLElement[] {
    const lines = this.workload.notes.map((note, index) => `[${index + 1}] ${note}`);
    if (this.workload.differing !== '') {
      lines.push(this.workload.differing);
    }
    return lines.length === 0 ? [] : [h('div', { class: 'nbopt-Notes' }, ...lines.map(line => h('div', {}, line)))];
  }

  /** The magic that does the next thing, to be copied: nothing here runs anything. */
  private next(): HTMLElement[] {
    const { next } = this.workload;
    if (next === '') {
      return [];
    }
    const copy = h('button', { type: 'button', class: 'nbopt-Button' }, 'Copy');
    copy.addEventListener('click', () => {
      void navigator.clipboard.writeText(next).then(
        () => (copy.textContent = 'Copied'),
        () => (copy.textContent = 'Copy it by hand')
      );
    });
    return [h('div', { class: 'nbopt-Next' }, h('code', {}, next), copy)];
  }

  private plotted(): HTMLElement[] {
    const { workload } = this;
    if (!Plot.worthwhile(workload)) {
      return [];
    }
    const holder = h('details', { class: 'nbopt-PlotFold' }, h('summary', {}, 'Quality against cost, and the Pareto front'));
    const show = (): void => {
      if (holder.open && this.plot === null) {
        this.plot = new Plot(workload, this.limits, {
          keeps: row => this.table.keeps(row),
          shows: row => this.table.shows(row),
          picked: row => this.table.picked.includes(row),
          pointed: row => this.table.point(row),
          toggled: row => {
            this.table.toggle(row);
            this.table.reveal(row);
          }
        });
        holder.append(this.plot.node);
      }
    };
    holder.addEventListener('toggle', show);
    holder.open = workload.rows.length >= FEWEST_FOR_PLOT && workload.rows.length <= MOST_FOR_OPEN_PLOT;
    show();
    return [holder];
  }
}

function sentence(kind: string, parts: readonly Part[]): HTMLElement {
  return h('p', { class: kind }, ...parts.map(part =>
    part.kind === 'words' ? typeset(part.text) : h('span', { class: `nbopt-${part.kind}` }, part.kind === 'aside' ? typeset(part.text) : part.text)
  ));
}
