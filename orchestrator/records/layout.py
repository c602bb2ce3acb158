"""Define where everything lies in a store. No other file spells a key.

The map of a store, below its root:

    store.json                                     version of this layout
    steps/<step>/                                  one training step
        record.json                                StepRecord: the proof that the step is published
        reproductions/<attempt>.json               Reproduction: what another attempt found
        request.json                               StepRequest: what the first attempt was to train
        lease.json                                 LeaseState: the worker that trains the step now
        attempts/<attempt>/                        one attempt to train the step
            progress.json                          how far the attempt has come
            lease.json                             of an attempt beside a published one
            curves/<iteration>.json                training curves, one piece per object
            checkpoints/<iteration>/...            state to resume from
            checkpoints/<iteration>/done.json      written last: names every file
            checkpoints/<iteration>/trained.json   of the last one: names every file of files/
            files/...                              published: model.safetensors, curves.json ...
            error.txt                              traceback of a failed attempt
    evaluations/<step>/<evaluation>.json           EvaluationRecord
    evaluations/<step>/<evaluation>.parquet        confusion counts of the evaluation
    chains/<chain>.json                            ChainRecord
    campaigns/<campaign>.json                      CampaignRecord
    searches/<search>/<number>.json                SampleRecord: one sample of a searched campaign
    verdicts/<campaign>/<rule>/<step>.json         Verdict: whether a rule continues a chain
    probes/<later step>/<probe>.json               ProbeRecord
    analyses/<analysis>.json                       AnalysisRecord
    datasets/shards/<sha256>.arrow                 images and masks, as the source holds them
    datasets/indexes/<sha256>.parquet              what each row of a split holds
    datasets/manifests/<sha256>.json               Manifest: the files of a dataset
    datasets/pages/<manifest sha256>.html          what `jobs.ingest look` saw in a dataset
    datasets/refs/<name>                           digest of the manifest that the name stands for
    datasets/layers/<content>/<name>               digest of the manifest of a split's layer
    datasets/parts/<shard job>.note                WrittenShard: the result of one shard job
    selections/<sha256>.json                       image lists of a scenario
    weights/<sha256>                               pretrained encoder weights
    reports/<dataset>.json                         unusable images of an ingested dataset

A store in a folder also holds two local files, which are no objects of the store:
    mlflow.db                                      MLflow's database, unless another is named
    tracking-spool/                                messages that MLflow has not received yet

`orchestrator.records.keys` makes keys of steps, evaluations and chains.
"""

STORE_VERSION = "store.json"

STEPS = "steps/"
EVALUATIONS = "evaluations/"
CHAINS = "chains/"
CAMPAIGNS = "campaigns/"
ANALYSES = "analyses/"
SHARDS = "datasets/shards/"
INDEXES = "datasets/indexes/"
MANIFESTS = "datasets/manifests/"
DATASET_NAMES = "datasets/refs/"
SHARD_NOTES = "datasets/parts/"

MLFLOW_DATABASE = "mlflow.db"
TRACKING_SPOOL = "tracking-spool"

CURVES_FILE = "curves.json"
MODEL_FILE = "model.safetensors"
_RECORD = "/record.json"
_DONE = "/done.json"
_TRAINED = "/trained.json"


# Steps


def step_folder(step: str) -> str:
    """Return the folder of a step, without a slash at its end."""
    return f"{STEPS}{step}"


def step_record(step: str) -> str:
    """Return the key of a step's record."""
    return f"{step_folder(step)}{_RECORD}"


def step_request(step: str) -> str:
    """Return the key of the request that the first attempt at a step writes."""
    return f"{step_folder(step)}/request.json"


def step_lease(step: str) -> str:
    """Return the key of a step's lease."""
    return f"{step_folder(step)}/lease.json"


def reproductions_folder(step: str) -> str:
    """Return the prefix of what other attempts at a published step found."""
    return f"{step_folder(step)}/reproductions/"


def reproduction(step: str, attempt: str) -> str:
    """Return the key of what another attempt at a published step found."""
    return f"{reproductions_folder(step)}{attempt}.json"


def is_step_record(name: str) -> bool:
    """Return True if `name` is the key of some step's record."""
    return name.startswith(STEPS) and name.count("/") == 2 and name.endswith(_RECORD)


def step_of(name: str) -> str:
    """Return the step that an object below `steps/` or `evaluations/` belongs to."""
    return name.split("/")[1]


def attempts_folder(step: str) -> str:
    """Return the prefix of all attempts at a step."""
    return f"{step_folder(step)}/attempts/"


def attempt_folder(step: str, attempt: str) -> str:
    """Return the folder of an attempt, without a slash at its end."""
    return f"{attempts_folder(step)}{attempt}"


def attempt_of(name: str) -> str:
    """Return the attempt that an object below a step's `attempts/` belongs to."""
    return name.split("/")[3]


def attempt_lease(step: str, attempt: str) -> str:
    """Return the key of the lease of an attempt that is made although the step is published."""
    return f"{attempt_folder(step, attempt)}/lease.json"


def progress(step: str, attempt: str) -> str:
    """Return the key of the progress of an attempt."""
    return f"{attempt_folder(step, attempt)}/progress.json"


def error(step: str, attempt: str) -> str:
    """Return the key of the traceback of a failed attempt."""
    return f"{attempt_folder(step, attempt)}/error.txt"


def curves_folder(step: str, attempt: str) -> str:
    """Return the prefix of the pieces of an attempt's training curves."""
    return f"{attempt_folder(step, attempt)}/curves/"


def curves_piece(step: str, attempt: str, iteration: int) -> str:
    """Return the key of the piece of the curves that begins at `iteration`."""
    return f"{curves_folder(step, attempt)}{iteration:08d}.json"


def files_folder(step: str, attempt: str) -> str:
    """Return the folder of the files that an attempt publishes, without a slash at its end."""
    return f"{attempt_folder(step, attempt)}/files"


def published_file(step: str, attempt: str, name: str) -> str:
    """Return the key of a published file of an attempt."""
    return f"{files_folder(step, attempt)}/{name}"


def checkpoints_folder(step: str, attempt: str) -> str:
    """Return the prefix of an attempt's checkpoints."""
    return f"{attempt_folder(step, attempt)}/checkpoints/"


def checkpoint_folder(step: str, attempt: str, iteration: int) -> str:
    """Return the folder of a checkpoint, without a slash at its end."""
    return f"{checkpoints_folder(step, attempt)}{iteration:08d}"


def checkpoint_done(folder: str, *, trained: bool = False) -> str:
    """Return the key of the object that proves that the checkpoint in `folder` is complete."""
    return f"{folder}{_TRAINED if trained else _DONE}"


def is_checkpoint_done(name: str) -> bool:
    """Return True if `name` is the object that proves that a checkpoint is complete."""
    return name.endswith((_DONE, _TRAINED))


def checkpoint_of(done: str) -> tuple[str, str, int]:
    """Return the folder of its files, attempt and iteration of the checkpoint `done` completes."""
    folder, _, _ = done.rpartition("/")
    attempt, iteration = attempt_of(done), int(folder.rpartition("/")[2])
    if done.endswith(_TRAINED):
        folder = files_folder(step_of(done), attempt)
    return folder, attempt, iteration


# Evaluations, chains, campaigns and analyses


def evaluations_folder(step: str) -> str:
    """Return the prefix of all evaluations of a step."""
    return f"{EVALUATIONS}{step}/"


def evaluation_record(step: str, evaluation: str) -> str:
    """Return the key of an evaluation's record."""
    return f"{evaluations_folder(step)}{evaluation}.json"


def evaluation_counts(step: str, evaluation: str) -> str:
    """Return the key of an evaluation's confusion counts."""
    return f"{evaluations_folder(step)}{evaluation}.parquet"


def is_evaluation_record(name: str) -> bool:
    """Return True if an object below `evaluations/` is a record."""
    return name.endswith(".json")


def chain_record(chain: str) -> str:
    """Return the key of a chain's record."""
    return f"{CHAINS}{chain}.json"


def campaign_record(campaign: str) -> str:
    """Return the key of a campaign's record."""
    return f"{CAMPAIGNS}{campaign}.json"


def samples_folder(search: str) -> str:
    """Return the prefix of the samples of a search."""
    return f"searches/{search}/"


def sample_record(search: str, number: int) -> str:
    """Return the key of the record of a sample of a search."""
    return f"{samples_folder(search)}{number:06d}.json"


def verdict(campaign: str, rule: str = "", step: str = "") -> str:
    """Return the key of what a stopping rule said of a chain after a step, or their prefix."""
    folder = f"verdicts/{campaign}/{rule.replace(' ', '-')}{'/' if rule else ''}"
    return f"{folder}{step}.json" if step else folder


def analysis_record(analysis: str) -> str:
    """Return the key of an analysis' record."""
    return f"{ANALYSES}{analysis}.json"


def probe_record(later_step: str, probe: str) -> str:
    """Return the key of the answer to a probe of two steps."""
    return f"probes/{later_step}/{probe}.json"


# Datasets and what else steps read


def dataset_name(name: str) -> str:
    """Return the key of the object that maps a dataset's name to the digest of its manifest."""
    return f"{DATASET_NAMES}{name}"


def layer_name(content: str, name: str = "") -> str:
    """Return the key that maps a split's layer to its manifest's digest; unnamed, their prefix."""
    return f"datasets/layers/{content}/{name}"


def manifest(sha256: str) -> str:
    """Return the key of a dataset's manifest."""
    return f"{MANIFESTS}{sha256}.json"


def dataset_page(manifest: str) -> str:
    """Return the key of the page that shows the dataset with that manifest, if it was looked at."""
    return f"datasets/pages/{manifest}.html"


def index(sha256: str) -> str:
    """Return the key of a split's index."""
    return f"{INDEXES}{sha256}.parquet"


def shard(sha256: str) -> str:
    """Return the key of a shard."""
    return f"{SHARDS}{sha256}.arrow"


def shard_note(job: str) -> str:
    """Return the key of the note about a finished shard job."""
    return f"{SHARD_NOTES}{job}.note"


def image_lists(sha256: str) -> str:
    """Return the key of a scenario's image lists."""
    return f"selections/{sha256}.json"


def encoder_weights(sha256: str) -> str:
    """Return the key of pretrained encoder weights."""
    return f"weights/{sha256}"


def ingestion_report(dataset: str) -> str:
    """Return the key of the list of a dataset's unusable images."""
    return f"reports/{dataset}.json"
