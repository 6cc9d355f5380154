"""The stages of a run, in order; each reads the files of the one before and marks itself finished in the manifest."""

from kg.settings import Settings
from models.run import Run
from models.stages import evaluate, finetune, gnn, pretrain
from models.stages.arms import taught
from models.stages.search import search

STAGES = {
    "gnn": gnn.run_stage,
    "pretrain": pretrain.run_stage,
    "finetune": finetune.run_stage,
    "evaluate": evaluate.run_stage,
}


def run_stages(run: Run, settings: Settings, *, last: str, trials: int = 0) -> None:
    """Run every stage up to ``last`` that this run has not finished; ``last`` itself always looks again.

    Args:
        trials: settings to try before fine-tuning.
    """
    begin_with = run.recipe.begin_with
    for arm in pretrain.pretrained_arms(run.recipe) if begin_with else ():
        taught(run.path, arm, begin_with=begin_with)  # what is missing is said before anything is made
    for name, run_stage in STAGES.items():
        if name == "finetune" and trials:
            search(run, settings, trials)
        if name == last or not run.done(name) or (name == "pretrain" and _lacks_an_arm(run)):
            run_stage(run, settings)
        if name == last:
            return


def _lacks_an_arm(run: Run) -> bool:
    """True where arms were added after pretraining: a fair comparison has all of them taught and pretrained."""
    return not set(pretrain.pretrained_arms(run.recipe)) <= set(run.manifest.get("pretrained_arms", ()))
