/** The mime renderer: the payload as a live table, with no kernel and no trust; what it cannot read is shown as HTML. */

import type { IRenderMime } from '@jupyterlab/rendermime-interfaces';
import { Widget } from '@lumino/widgets';
import type { Message } from '@lumino/messaging';
import { isRefusal, MIME, read } from './payload';
import { ComparisonView } from './view/comparison';
import { h } from './view/dom';

const MOST_JSON = 100_000;

class Renderer extends Widget implements IRenderMime.IRenderer {
  private view: ComparisonView | null = null;

  constructor(private readonly options: IRenderMime.IRendererOptions) {
    super();
    this.addClass('nbopt-Renderer');
  }

  async renderModel(model: IRenderMime.IMimeModel): Promise<void> {
    const payload = read(model.data[this.options.mimeType]);
    this.view = null;
    if (isRefusal(payload)) {
      this.node.replaceChildren(...this.fallback(payload.why, model));
      return;
    }
    this.view = new ComparisonView(payload);
    this.node.replaceChildren(this.view.node);
    this.view.settle();
  }

  protected override onAfterAttach(_: Message): void {
    this.view?.settle();
  }

  protected override onResize(_: Widget.ResizeMessage): void {
    this.view?.settle();
  }

  /** The HTML of the same bundle, through JupyterLab's sanitizer whatever the notebook's trust. */
  private fallback(why: string, model: IRenderMime.IMimeModel): HTMLElement[] {
    const note = h('p', { class: 'nbopt-Muted nbopt-Small' }, `Shown without nbopt's live table: ${why}.`);
    const html = model.data['text/html'];
    const text = model.data['text/plain'];
    const body = h('div', { class: 'jp-RenderedHTMLCommon' });
    if (typeof html === 'string') {
      body.innerHTML = this.options.sanitizer.sanitize(html);
    } else {
      body.append(h('pre', {}, typeof text === 'string' ? text : asJson(model.data[this.options.mimeType])));
    }
    return [note, body];
  }
}

/** A file of the same ending that is no comparison, such as the description beside an artifact, as it is. */
function asJson(data: unknown): string {
  return data === undefined ? '' : JSON.stringify(data, null, 2).slice(0, MOST_JSON);
}

const extension: IRenderMime.IExtension = {
  id: 'nbopt:comparison',
  description: 'Renders comparisons of nbopt, and opens .nbopt.json files.',
  rendererFactory: {
    safe: true,
    mimeTypes: [MIME],
    createRenderer: options => new Renderer(options)
  },
  // Before text/html, which is 50.
  rank: 40,
  dataType: 'json',
  fileTypes: [
    { name: 'nbopt', displayName: 'nbopt comparison', extensions: ['.nbopt.json'], mimeTypes: [MIME], fileFormat: 'text' }
  ],
  documentWidgetFactoryOptions: {
    name: 'nbopt comparison',
    primaryFileType: 'nbopt',
    fileTypes: ['nbopt', 'json'],
    defaultFor: ['nbopt']
  }
};

export default extension;
