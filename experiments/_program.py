"""The shared part of all programs: flags from a configuration, and errors in one line."""

import dataclasses
import os
import sys
import textwrap
import warnings
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any

from absl import app, flags, logging
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from modsync_jax import _calls
from modsync_jax._names import listed
from modsync_jax.sweeps import STRATEGIES
from modsync_jax.training import (
    PRESETS,
    SECTIONS,
    ConfigError,
    Interrupted,
    NonFinite,
    RunError,
    TrainConfig,
    entry_type,
    expanded,
    gone,
    read_config,
)

if TYPE_CHECKING:
    from modsync_jax.training import Solution

from . import _cache, _processes

FLAGS = flags.FLAGS
_DEVICE_FLAGS = """platform deterministic compilation_cache strategy point_devices memory_gib
cpu_devices distributed coordinator num_processes process_id join_timeout_seconds"""
_DEFINE: dict[Any, Callable[..., Any]] = {
    bool: flags.DEFINE_bool,
    int: flags.DEFINE_integer,
    float: flags.DEFINE_float,
}


def define_settings(leave_out: Collection[str] = ()) -> None:
    """Defines `--preset`, and a flag for each field of `TrainConfig` but those in `leave_out`."""
    flags.DEFINE_enum("preset", None, list(PRESETS), "settings that take the place of the defaults")
    for field in dataclasses.fields(TrainConfig):
        if field.name in leave_out:
            continue
        choices = field.metadata["choices"]
        text = field.metadata["help"] + (f": {', '.join(choices)}" if choices else "")
        if field.type in _DEFINE:
            _DEFINE[field.type](field.name, field.default, text)
        else:
            default = "" if field.default is dataclasses.MISSING else field.default
            flags.DEFINE_string(field.name, default, text)


def define_lists() -> None:
    """Defines the flags that print lists."""
    flags.DEFINE_bool("list_methods", False, "print the parts of methods, with sources, and exit")
    flags.DEFINE_bool("list_problems", False, "print the problems, with sources, and exit")


def show_lists() -> None:
    """Prints the lists that the flags of `define_lists` ask for, and then ends the program."""
    from modsync_jax import citations, methods, problems

    if FLAGS.list_methods:
        lines = [
            [name, part.kind, part.summary, citations.ENTRIES[part.citation].short]
            for name, part in methods.PARTS.items()
        ]
        title = "Parts of methods, joined as [modsync+][balancing+...][aggregator]"
        show_table(title, ["part", "kind", "what it does", "source"], lines)
    if FLAGS.list_problems:
        found = [(name, problems.get(name)) for name in problems.names()]
        head = ["problem", "coefficients", "coordinates", "values", "conditions", "source"]
        lines = [
            [
                name,
                ", ".join(f"{name}={value:.4g}" for name, value in p.coefficients.items()),
                *(listed(tuple(names)) for names in (p.coordinates, p.outputs, p.conditions)),
                p.source,
            ]
            for name, p in found
        ]
        show_table("Problems", head, lines)
    if FLAGS.list_methods or FLAGS.list_problems:
        sys.exit(0)


def show_table(title: str, head: list[str], rows: list[list[str]]) -> None:
    """Prints a table in the width of the terminal; in a file or pipe, in its own width."""
    table = Table(*head, title=escape(title))
    for row in rows:
        table.add_row(*map(escape, row))
    console = Console()
    (console if console.is_terminal else Console(width=200)).print(table)


def define_device() -> None:
    """Defines the flags of the device."""
    flags.DEFINE_string("platform", "auto", "where to run: auto, cpu, gpu, tpu")
    flags.DEFINE_bool("deterministic", False, "deterministic operations on GPUs: same bits, slower")
    flags.DEFINE_string(
        "compilation_cache", "auto", "folder of compiled programs, 'none', or 'auto': the user's"
    )


def define_replicas() -> None:
    """Defines the flags of the distribution of networks over devices."""
    text = "networks of a device: at once, or in turn"
    flags.DEFINE_enum("strategy", STRATEGIES[0], STRATEGIES, text)
    flags.DEFINE_integer("point_devices", 1, "devices that share the points of each network")
    flags.DEFINE_float("memory_gib", None, "memory of each device to use, in GiB; all if not given")
    flags.DEFINE_integer(
        "cpu_devices", 0, "devices to split the CPU into, one thread each; 0: one for each core"
    )
    flags.DEFINE_bool(
        "distributed", False, "join the processes that SLURM, GKE, a TPU pod or MPI started"
    )
    flags.DEFINE_string("coordinator", "", "join others: host:port of process 0")
    flags.DEFINE_integer(
        "num_processes", None, "with coordinator: number of processes", lower_bound=1
    )
    flags.DEFINE_integer("process_id", None, "with coordinator: number of this process, from 0")
    flags.DEFINE_integer(
        "join_timeout_seconds", 300, "seconds to wait for all to join", lower_bound=1
    )


def replica_settings() -> dict[str, Any]:
    """Returns the values of those flags of `define_replicas` that a sweep takes."""
    return {name: FLAGS[name].value for name in ("strategy", "point_devices", "memory_gib")}


def settings(only_given: bool = False) -> dict[str, Any]:
    """Returns the values of the flags of `define_settings`, and those of the preset.

    Args:
      only_given: whether to leave out defaults.

    Raises:
      ConfigError: on a mapping that is not `name=number,...`.
    """
    defaults: dict[str, Any] = {}
    given: dict[str, Any] = {"preset": FLAGS.preset or ""}
    for field in dataclasses.fields(TrainConfig):
        if field.name not in FLAGS:
            continue
        value: Any = FLAGS[field.name].value
        if kind := entry_type(field):
            value = _mapping(field.name, value, kind)
        (given if FLAGS[field.name].present else defaults)[field.name] = value
    return expanded(given) if only_given else {**defaults, **expanded(given)}


def prepare_device(dtype: str, *, replicas: bool = False) -> None:
    """Sets platform, determinism and 64-bit types before JAX starts.

    Args:
      dtype: floating type of the run.
      replicas: whether to make each core of a CPU a device, as `--cpu_devices` says. Networks side
        by side are faster than threads within one network.

    Raises:
      ConfigError: on an unknown platform.
    """
    wanted = FLAGS.platform
    if wanted not in ("auto", "cpu", "gpu", "tpu"):
        raise ConfigError(f"unknown platform {wanted!r} (known: auto, cpu, gpu, tpu)")
    if FLAGS.deterministic:
        _add_xla_flag("--xla_gpu_deterministic_ops=true")
    if replicas:
        _add_xla_flag("--xla_cpu_multi_thread_eigen=false")
    import jax

    if replicas:
        cores = FLAGS.cpu_devices or len(os.sched_getaffinity(0))
        jax.config.update("jax_num_cpu_devices", cores)
    jax.config.update("jax_enable_x64", dtype == "float64")
    _cache.keep(FLAGS.compilation_cache)
    if wanted == "cpu":
        jax.config.update("jax_platforms", "cpu")
    if replicas:
        _join()
    if wanted not in ("auto", "cpu") and jax.default_backend() != wanted:
        raise ConfigError(
            f"--platform={wanted} was asked for, but JAX found only {jax.default_backend()}; "
            f"install jax[{_EXTRAS[wanted]}], or leave --platform out"
        )


def opened(run: str) -> dict[str, Any]:
    """Reads the `config.json` of the run in a folder, and prepares the device for its numbers.

    Raises:
      ConfigError: on an empty name, the flag that is missing.
      RunError: when the folder holds no run.
    """
    if not run:
        raise ConfigError("--run is missing; name the folder of a run")
    config = read_config(run)
    prepare_device(TrainConfig.from_stored(config).widest_dtype)
    return config


def loaded(run: str, config: Mapping[str, Any]) -> "Solution":
    """Loads the run that `opened` has read, and says what is wrong with it on standard error."""
    import modsync_jax

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", UserWarning)
        solution = modsync_jax.load(run)
    for warning in said:
        if warning.category is UserWarning:
            say(str(warning.message))
    if not solution.result:
        total = TrainConfig.from_stored(config).total_steps
        step = solution.metrics[-1]["step"] if solution.metrics else 0
        done = f"its best parameters until step {step:.0f} of {total}"
        say(f"the run is not finished: these are {done}")
    return solution


def _join() -> None:
    given = (FLAGS.num_processes, FLAGS.process_id)
    if (None in given) if FLAGS.coordinator else (given != (None, None)):
        raise ConfigError(
            "--coordinator, --num_processes and --process_id belong together; give all three, or "
            "--distributed to let JAX find them"
        )
    if FLAGS.coordinator and not FLAGS.coordinator.rpartition(":")[2].isdecimal():
        raise ConfigError(f"--coordinator is {FLAGS.coordinator!r}; it must be host:port")
    if FLAGS.distributed or FLAGS.coordinator:
        _processes.join(FLAGS.coordinator, *given, FLAGS.join_timeout_seconds)


def _add_xla_flag(flag: str) -> None:
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flag}".strip()


def show_help(text: str) -> None:
    """Prints a program's description, and its flags in sections."""
    settings, title = {}, ""
    for field in dataclasses.fields(TrainConfig):
        title = SECTIONS.get(field.name, title)
        settings[field.name] = title
    own = [
        module
        for module in FLAGS.flags_by_module_dict()
        if not module.startswith(("absl", "orbax"))
    ]
    found = {flag.name: flag for m in own for flag in FLAGS.flags_by_module_dict()[m]}
    sections: dict[str, list[Any]] = {"This program": []}
    for title in SECTIONS.values():
        sections[title] = [found.pop(n) for n, of in settings.items() if of == title and n in found]
    sections["Devices"] = [found.pop(name) for name in _DEVICE_FLAGS.split() if name in found]
    sections["This program"] = list(found.values())
    print(text.strip())
    for title, members in sections.items():
        if members:
            print(f"\n{title}")
        for flag in members:
            name = f"[no]{flag.name}" if flag.boolean else flag.name
            default = "" if flag.default in (None, "", False) else f" (default: {flag.default})"
            line = f"--{name}: {flag.help}{default}"
            print(textwrap.fill(line, 100, initial_indent="  ", subsequent_indent="      "))


_EXTRAS = {"gpu": "cuda12", "tpu": "tpu"}


def run(main: Callable[[], None]) -> None:
    """Runs a program: absl flags, then `main`; a user's mistake is one line and exit code 2."""

    def parse(argv: list[str]) -> list[str]:
        if "--help" in argv[1:] or "-help" in argv[1:] or "-h" in argv[1:]:
            show_help(sys.modules[main.__module__].__doc__ or "")
            sys.exit(0)
        try:
            rest = FLAGS(argv)
        except flags.Error as error:
            sentence = gone(getattr(error, "flagname", ""))
            say(sentence or f"{error} (--help lists all flags)")
            sys.exit(2)
        if len(rest) > 1:
            say(f"unexpected argument {rest[1]!r}; all arguments are flags, --name=value")
            sys.exit(2)
        return rest

    def guarded(_: list[str]) -> None:
        logging.set_verbosity(logging.FATAL)  # no messages of libraries; errors are shown below
        with _processes.together():
            try:
                main()
            except Interrupted as stop:
                say(str(stop))
                sys.exit(_processes.INTERRUPTED)
            except NonFinite as failure:
                say(str(failure))
                sys.exit(1)
            except (ConfigError, RunError) as mistake:
                say(str(mistake))
                sys.exit(2)
            except OSError as trouble:
                if trouble.filename is None or trouble.strerror is None:
                    raise
                say(f"{trouble.filename}: {trouble.strerror}")
                sys.exit(2)

    app.run(guarded, flags_parser=parse)


def say(text: str) -> None:
    """Prints one line on standard error."""
    print(text, file=sys.stderr, flush=True)


def _mapping(name: str, text: str, kind: Callable[[str], Any]) -> Mapping[str, Any]:
    def entry(value: str) -> Any:
        of_unknown = name == "coefficients" and "(" in value
        return value if of_unknown else kind(value)

    pairs = [part.partition("=") for part in _calls.split(text, ",") if part.strip()]
    try:
        return {key.strip(): entry(value) for key, _, value in pairs}
    except ValueError:
        raise ConfigError(f"{name} is {text!r}; it must be name=number,name=number,...") from None
