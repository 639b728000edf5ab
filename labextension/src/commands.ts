/** Commands for the palette and the toolbar. They write cells and interrupt; what is optimized, the kernel decides. */

import type { JupyterFrontEnd } from '@jupyterlab/application';
import { InputDialog, showErrorMessage, type ICommandPalette } from '@jupyterlab/apputils';
import type { ILauncher } from '@jupyterlab/launcher';
import { NotebookActions, type INotebookTracker, type NotebookPanel } from '@jupyterlab/notebook';
import { LabIcon } from '@jupyterlab/ui-components';
import { openTutorial } from './tutorials';

export const CATEGORY = 'nbopt';

export namespace CommandIDs {
  export const insert = 'nbopt:insert';
  export const panel = 'nbopt:open-panel';
  export const interrupt = 'nbopt:interrupt-and-keep';
  export const runs = 'nbopt:show-runs';
  export const compare = 'nbopt:compare-selected';
  export const tutorial = 'nbopt:open-tutorial';
}

/** An interval that lies beyond zero. */
const SVG = `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 24 24" width="16">
  <path fill="none" class="jp-icon3" stroke="#616161" stroke-width="1.8" stroke-linecap="round" d="M5 3v18M9 12h11M9 9v6M20 9v6"/>
  <circle class="jp-icon3" fill="#616161" cx="14.5" cy="12" r="3"/>
</svg>`;
export const ICON = new LabIcon({ name: 'nbopt:icon', svgstr: SVG });

const MAGIC = '%optimize';
/** After a bar only techniques can stand, and not the magic's other verbs. */
const BEFORE_TECHNIQUE = `${MAGIC} x | `;
const LOADED = '%load_ext nbopt';

interface Acts {
  /** The template for a technique, from the settings. */
  readonly template: () => string;
  readonly showRuns: () => void;
  readonly compare: () => void;
  readonly canCompare: () => boolean;
}

export function addCommands(
  app: JupyterFrontEnd,
  tracker: INotebookTracker,
  palette: ICommandPalette | null,
  launcher: ILauncher | null,
  acts: Acts
): void {
  const { commands } = app;
  const open = (): boolean => tracker.currentWidget !== null;
  commands.addCommand(CommandIDs.insert, {
    label: 'Insert a Technique\u2026',
    caption: 'Insert a cell with the magic of one of nbopt’s techniques',
    isEnabled: open,
    describedBy: { args: { type: 'object', properties: { technique: { type: 'string' } } } },
    execute: async args => {
      const notebook = tracker.currentWidget;
      const technique = typeof args['technique'] === 'string' ? args['technique'] : await ask(notebook);
      if (notebook !== null && technique !== null) {
        insert(notebook, acts.template().split('{technique}').join(technique));
      }
    }
  });
  commands.addCommand(CommandIDs.panel, {
    label: 'Open the Panel',
    caption: 'Insert and run %optimize panel',
    isEnabled: open,
    execute: async () => {
      const notebook = tracker.currentWidget;
      if (notebook !== null) {
        insert(notebook, `${LOADED}\n${MAGIC} panel`);
        await NotebookActions.run(notebook.content, notebook.sessionContext);
      }
    }
  });
  commands.addCommand(CommandIDs.interrupt, {
    label: 'Interrupt and Keep What Is Done',
    caption: 'Interrupt the kernel; nbopt shows and binds the runs that are finished',
    isEnabled: open,
    execute: async () => {
      await tracker.currentWidget?.sessionContext.session?.kernel?.interrupt();
    }
  });
  commands.addCommand(CommandIDs.runs, {
    label: 'Show Runs',
    caption: 'Show the runs of all open notebooks',
    execute: acts.showRuns
  });
  commands.addCommand(CommandIDs.compare, {
    label: 'Compare Selected Runs',
    caption: 'Open the runs that are picked in the panel as one table',
    isEnabled: acts.canCompare,
    execute: acts.compare
  });
  commands.addCommand(CommandIDs.tutorial, {
    label: args => (args['isLauncher'] === true ? 'Tutorials' : 'Open a Tutorial\u2026'),
    caption: 'Copy a tutorial that came with nbopt into this folder, and open it',
    icon: args => (args['isPalette'] === true ? undefined : ICON),
    describedBy: { args: { type: 'object', properties: { cwd: { type: 'string' }, name: { type: 'string' } } } },
    execute: args => {
      const beside = tracker.currentWidget?.context.path.split('/').slice(0, -1).join('/') ?? '';
      const folder = typeof args['cwd'] === 'string' ? args['cwd'] : beside;
      return openTutorial(app, folder, typeof args['name'] === 'string' ? args['name'] : null);
    }
  });
  for (const command of Object.values(CommandIDs)) {
    palette?.addItem({ command, category: CATEGORY, args: { isPalette: true } });
  }
  launcher?.add({ command: CommandIDs.tutorial, category: CATEGORY, args: { isLauncher: true } });
}

/** Ask which technique, of those that the kernel's own completion knows: none is named here. */
async function ask(notebook: NotebookPanel | null): Promise<string | null> {
  const kernel = notebook?.sessionContext.session?.kernel;
  if (!kernel) {
    await showErrorMessage('nbopt', 'Expected a running kernel, which knows the techniques. Start one, and try again.');
    return null;
  }
  // Loading twice does nothing, and without it the kernel would complete file names.
  await kernel.requestExecute({ code: LOADED, silent: true, store_history: false }).done;
  const answer = await kernel.requestComplete({ code: BEFORE_TECHNIQUE, cursor_pos: BEFORE_TECHNIQUE.length });
  const words = answer.content.status === 'ok' ? answer.content.matches.map(each => each.trim()).filter(Boolean) : [];
  if (words.length === 0) {
    await showErrorMessage('nbopt', 'Expected nbopt in this kernel; it knows no such magic. In its environment: pip install nbopt');
    return null;
  }
  const chosen = await InputDialog.getItem({ title: 'Insert a technique', label: '%optimize', items: words, okLabel: 'Insert' });
  return chosen.button.accept ? chosen.value : null;
}

/** Write into the active cell where it is empty, else into a new one below it. */
function insert(notebook: NotebookPanel, source: string): void {
  const empty = (): boolean => notebook.content.activeCell?.model.sharedModel.getSource().trim() === '';
  if (!empty()) {
    NotebookActions.insertBelow(notebook.content);
  }
  notebook.content.activeCell?.model.sharedModel.setSource(source);
}
