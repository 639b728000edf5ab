/** The plugin: a panel of all runs, and the commands. The mime renderer beside it needs none of this. */

import { ILayoutRestorer, type JupyterFrontEnd, type JupyterFrontEndPlugin } from '@jupyterlab/application';
import { ICommandPalette, MainAreaWidget } from '@jupyterlab/apputils';
import { ILauncher } from '@jupyterlab/launcher';
import { INotebookTracker } from '@jupyterlab/notebook';
import { ISettingRegistry } from '@jupyterlab/settingregistry';
import { Widget } from '@lumino/widgets';
import { together } from './collect';
import { addCommands } from './commands';
import { RunsPanel } from './runs';
import { ComparisonView } from './view/comparison';
import { keepKeys } from './view/keys';

const ID = 'nbopt:plugin';
const TEMPLATE = '%optimize {technique}';

const plugin: JupyterFrontEndPlugin<void> = {
  id: ID,
  description: 'A panel of the runs of all open notebooks, and commands.',
  autoStart: true,
  requires: [INotebookTracker],
  optional: [ICommandPalette, ISettingRegistry, ILayoutRestorer, ILauncher],
  activate: async (
    app: JupyterFrontEnd,
    tracker: INotebookTracker,
    palette: ICommandPalette | null,
    registry: ISettingRegistry | null,
    restorer: ILayoutRestorer | null,
    launcher: ILauncher | null
  ): Promise<void> => {
    let template = TEMPLATE;
    const compare = (): void => {
      const view = new ComparisonView(together(panel.selected));
      const content = new Widget({ node: view.node });
      content.addClass('nbopt-Renderer');
      const opened = new MainAreaWidget({ content });
      opened.title.label = 'Compared runs';
      opened.title.closable = true;
      app.shell.add(opened, 'main');
      app.shell.activateById(opened.id);
      view.settle();
    };
    // The kernel's panel is made of ipywidgets, which leave keys to the notebook: two d's on its list delete the cell.
    keepKeys(document.body, '.nbopt-Panel');
    const panel = new RunsPanel(tracker, compare);
    app.shell.add(panel, 'left', { rank: 600, type: 'nbopt' });
    restorer?.add(panel, panel.id);
    addCommands(app, tracker, palette, launcher, {
      template: () => template,
      showRuns: () => app.shell.activateById(panel.id),
      compare,
      canCompare: () => panel.selected.length > 0
    });
    if (registry !== null) {
      const settings = await registry.load(ID);
      const apply = (): void => {
        const given = settings.get('template').composite;
        template = typeof given === 'string' && given.includes('{technique}') ? given : TEMPLATE;
        panel.setActiveOnly(settings.get('showOnlyRunsOfTheActiveNotebook').composite === true);
      };
      settings.changed.connect(apply);
      apply();
    }
  }
};

export default plugin;
