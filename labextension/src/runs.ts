/** The side panel: all runs of the open notebooks, from their outputs, saved or live. */

import type { INotebookTracker, NotebookPanel } from '@jupyterlab/notebook';
import type { Message } from '@lumino/messaging';
import { Widget } from '@lumino/widgets';
import { found, type Found } from './collect';
import { MIME } from './payload';
import { h, typeset, uniqueId } from './view/dom';

const SETTLE_MS = 200;
const MOST_LISTED = 500;

export class RunsPanel extends Widget {
  private readonly picked = new Map<string, Found>();
  private readonly followed = new WeakSet<NotebookPanel>();
  private readonly list = h('div', { class: 'nbopt-RunsBody' });
  private readonly compare = h('button', { type: 'button', class: 'nbopt-Button' }, 'Compare');
  private readonly clear = h('button', { type: 'button', class: 'nbopt-Button' }, 'Clear');
  private activeOnly = false;
  private timer = 0;

  constructor(
    private readonly tracker: INotebookTracker,
    compare: () => void
  ) {
    super();
    this.id = 'nbopt-runs';
    this.title.label = 'nbopt';
    this.title.caption = 'Runs of nbopt in the open notebooks';
    this.addClass('nbopt-Runs');
    this.node.append(h('div', { class: 'nbopt-RunsHead' }, this.compare, this.clear), this.list);
    this.compare.addEventListener('click', compare);
    this.clear.addEventListener('click', () => {
      this.picked.clear();
      this.draw();
    });
    tracker.widgetAdded.connect((_, panel) => this.follow(panel));
    tracker.currentChanged.connect(() => this.later());
    tracker.forEach(panel => this.follow(panel));
  }

  get selected(): readonly Found[] {
    return [...this.picked.values()];
  }

  setActiveOnly(activeOnly: boolean): void {
    this.activeOnly = activeOnly;
    this.later();
  }

  protected override onAfterShow(_: Message): void {
    this.draw();
  }

  private follow(panel: NotebookPanel): void {
    if (!this.followed.has(panel)) {
      this.followed.add(panel);
      panel.content.modelContentChanged.connect(() => this.later());
      panel.disposed.connect(() => this.later());
      void panel.context.ready.then(() => this.later());
      panel.context.pathChanged.connect(() => this.later());
    }
  }

  /** Draw once what changes many times: a run prints its progress a few times a second. */
  private later(): void {
    window.clearTimeout(this.timer);
    this.timer = window.setTimeout(() => !this.isDisposed && this.isVisible && this.draw(), SETTLE_MS);
  }

  private draw(): void {
    const groups: { notebook: string; runs: Found[] }[] = [];
    const there = new Map<string, Found>();
    this.tracker.forEach(panel => {
      const shown = !this.activeOnly || panel === this.tracker.currentWidget;
      const runs = found(panel.context.path, payloadsOf(panel));
      runs.forEach(run => there.set(keyOf(run), run));
      if (shown && runs.length > 0) {
        groups.push({ notebook: panel.context.path, runs });
      }
    });
    for (const key of [...this.picked.keys()]) {
      const run = there.get(key);
      if (run === undefined) {
        this.picked.delete(key);
      } else {
        this.picked.set(key, run);
      }
    }
    this.list.replaceChildren(...groups.flatMap(group => this.group(group.notebook, group.runs)));
    if (groups.length === 0) {
      this.list.append(h('p', { class: 'nbopt-RunsEmpty' }, 'No open notebook shows runs of nbopt.'));
    }
    this.count();
  }

  private group(notebook: string, runs: readonly Found[]): HTMLElement[] {
    const title = h('h3', { class: 'nbopt-RunsTitle' }, `${notebook} (${runs.length})`);
    const items = runs.slice(0, MOST_LISTED).map(run => this.item(run));
    const more = runs.length - items.length;
    return [title, h('ul', { class: 'nbopt-RunsList' }, ...items, ...(more > 0 ? [h('li', {}, `${more} more`)] : []))];
  }

  private item(run: Found): HTMLElement {
    const { row } = run;
    const id = uniqueId();
    const box = h('input', { type: 'checkbox', id });
    box.checked = this.picked.has(keyOf(run));
    box.addEventListener('change', () => {
      if (box.checked) {
        this.picked.set(keyOf(run), run);
      } else {
        this.picked.delete(keyOf(run));
      }
      this.count();
    });
    const figures = [row.runtime, row.figures['quality']?.value, times(row.figures['speedup']?.value)].filter(Boolean);
    const verdict = row.failed ? `failed: ${row.reason}` : row.verdict;
    return h(
      'li',
      {},
      box,
      h('label', { for: id }, row.label),
      h('div', { class: 'nbopt-RunFacts' }, typeset(figures.join(' \u00b7 '))),
      h('div', { class: 'nbopt-RunFacts' }, h('span', { class: `nbopt-Verdict nbopt-tone-${row.tone}` }, verdict))
    );
  }

  private count(): void {
    const count = this.picked.size;
    this.compare.textContent = count === 0 ? 'Compare picked runs' : `Compare ${count} picked ${count === 1 ? 'run' : 'runs'}`;
    this.compare.disabled = count === 0;
    this.clear.disabled = count === 0;
  }
}

function times(speedup: string | undefined): string {
  return speedup === undefined ? '' : `${speedup}x`;
}

function keyOf({ notebook, workload, row }: Found): string {
  return `${notebook}\n${workload.key}\n${row.id || row.name}`;
}

function* payloadsOf(panel: NotebookPanel): Iterable<unknown> {
  const cells = panel.content.model?.cells ?? [];
  for (const cell of cells) {
    const { outputs } = cell as unknown as { outputs?: Outputs };
    for (let index = 0; index < (outputs?.length ?? 0); index += 1) {
      const data = outputs?.get(index).data[MIME];
      if (data !== undefined) {
        yield data;
      }
    }
  }
}

/** What is asked of a code cell's outputs. */
interface Outputs {
  readonly length: number;
  get(index: number): { readonly data: Readonly<Record<string, unknown>> };
}
