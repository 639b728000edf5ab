/** The tutorials that came with the extension: one is copied into the reader's folder, and opened. */

import type { JupyterFrontEnd } from '@jupyterlab/application';
import { InputDialog, showErrorMessage } from '@jupyterlab/apputils';
import { PageConfig, URLExt } from '@jupyterlab/coreutils';

interface Tutorial {
  readonly name: string;
  readonly title: string;
}

/**
 * Ask which tutorial, and open a copy of it in a folder. The reader's own copy of before is opened as it is: nothing is
 * written over.
 */
export async function openTutorial(app: JupyterFrontEnd, folder: string, wanted: string | null): Promise<void> {
  try {
    const all = (await brought('list.json')) as readonly Tutorial[];
    const name = wanted ?? (await ask(all));
    if (name !== null) {
      const path = await copied(app, folder, name);
      await app.commands.execute('docmanager:open', { path });
    }
  } catch (error) {
    const came = error instanceof Error ? error.message : String(error);
    await showErrorMessage('nbopt', `Expected a tutorial that can be copied into "${folder || '/'}"; came: ${came}`);
  }
}

async function ask(all: readonly Tutorial[]): Promise<string | null> {
  const titles = all.map(each => each.title);
  const chosen = await InputDialog.getItem({ title: 'Open a tutorial of nbopt', items: titles, okLabel: 'Open' });
  const found = all.find(each => each.title === chosen.value);
  return chosen.button.accept && found !== undefined ? found.name : null;
}

async function copied(app: JupyterFrontEnd, folder: string, name: string): Promise<string> {
  const { contents } = app.serviceManager;
  const path = folder === '' ? `nbopt-${name}` : `${folder}/nbopt-${name}`;
  const listed = (await contents.get(folder)).content as readonly { readonly path: string }[];
  if (!listed.some(each => each.path === path)) {
    await contents.save(path, { type: 'notebook', format: 'json', content: await brought(name) });
  }
  return path;
}

/** Return a file from the folder that this extension is served from. */
async function brought(name: string): Promise<unknown> {
  const url = URLExt.join(PageConfig.getOption('fullLabextensionsUrl'), 'nbopt', 'tutorials', name);
  const answer = await fetch(url);
  if (!answer.ok) {
    throw new Error(`${answer.status} ${answer.statusText} for ${url}`);
  }
  return answer.json();
}
