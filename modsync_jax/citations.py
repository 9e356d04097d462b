"""The sources of methods, problems and networks: `cite("lra+dcgd", problem="burgers")`."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from modsync_jax import methods, problems
from modsync_jax._names import lookup, unknown


@dataclasses.dataclass(frozen=True)
class Entry:
    """One source.

    Attributes:
      kind: BibTeX's type of the entry.
      key: its key.
      fields: its fields, `author` and `year` among them.
    """

    kind: str
    key: str
    fields: Mapping[str, str]

    @property
    def bibtex(self) -> str:
        """The entry as BibTeX."""
        lines = "".join(f"  {name} = {{{value}}},\n" for name, value in self.fields.items())
        return f"@{self.kind}{{{self.key},\n{lines}}}"

    @property
    def short(self) -> str:
        """Authors and year: `Hwang & Lim 2024`, `Yu et al. 2020`."""
        names = [a.partition(",")[0] for a in self.fields["author"].split(" and ")]
        who = ", ".join(names[:-1]) + " & " * (len(names) > 1) + names[-1]
        if len(names) > 3:
            who = f"{names[0]} et al."
        for braced, plain in (("{\\'e}", "é"), ("{\\'a}", "á"), ("{", ""), ("}", "")):
            who = who.replace(braced, plain)
        return f"{who} {self.fields['year']}"


def _arxiv(key: str, authors: str, title: str, year: str, number: str) -> Entry:
    fields = {"author": authors, "title": title, "year": year}
    return Entry("misc", key, fields | {"eprint": number, "archivePrefix": "arXiv"})


def _paper(key: str, authors: str, title: str, year: str, venue: str) -> Entry:
    fields = {"author": authors, "title": title, "year": year}
    return Entry("inproceedings", key, fields | {"booktitle": venue})


def _article(
    key: str, authors: str, title: str, year: str, journal: str, volume: str, pages: str
) -> Entry:
    fields = {"author": authors, "title": title, "year": year}
    return Entry("article", key, fields | {"journal": journal, "volume": volume, "pages": pages})


_NEURIPS = "Advances in Neural Information Processing Systems"
_ICML = "International Conference on Machine Learning"
_ICLR = "International Conference on Learning Representations"
_JCP = "Journal of Computational Physics"

_ENTRIES = (
    Entry(
        "software",
        "modsync_jax",
        {
            "author": "{The modsync_jax developers}",
            "title": "modsync_jax: ModSync and conflict-averse gradients for physics-informed"
            " neural networks in {JAX}",
            "year": "2026",
        },
    ),
    _arxiv(
        "modsync",
        "Kong, Heejo and Park, Beomchul and Kim, Sung-Jin and Lee, Seong-Whan",
        "Modularity-Free Conflict-Averse Training for Generalized {PINNs}",
        "2026",
        "2606.20156",
    ),
    _arxiv(
        "adapters",
        "Kim, Bum Jun and N'guessan, Gnankan Landry Regis",
        "Per-Loss Adapters for Gradient Conflict in Physics-Informed Neural Networks",
        "2026",
        "2605.10136",
    ),
    _arxiv(
        "magnitude",
        "Zhu, Michael and Gupta, Suyog",
        "To Prune, or Not to Prune: Exploring the Efficacy of Pruning for Model Compression",
        "2017",
        "1710.01878",
    ),
    _paper(
        "dropconnect",
        "Wan, Li and Zeiler, Matthew and Zhang, Sixin and {LeCun}, Yann and Fergus, Rob",
        "Regularization of Neural Networks using {DropConnect}",
        "2013",
        _ICML,
    ),
    _paper(
        "dcgd",
        "Hwang, Youngsik and Lim, Dong-Young",
        "Dual Cone Gradient Descent for Training Physics-Informed Neural Networks",
        "2024",
        _NEURIPS,
    ),
    _paper(
        "config",
        "Liu, Qiang and Chu, Mengyu and Thuerey, Nils",
        "{ConFIG}: Towards Conflict-free Training of Physics Informed Neural Networks",
        "2025",
        _ICLR,
    ),
    _paper(
        "pcgrad",
        "Yu, Tianhe and Kumar, Saurabh and Gupta, Abhishek and Levine, Sergey and Hausman, Karol"
        " and Finn, Chelsea",
        "Gradient Surgery for Multi-Task Learning",
        "2020",
        _NEURIPS,
    ),
    _paper(
        "cagrad",
        "Liu, Bo and Liu, Xingchao and Jin, Xiaojie and Stone, Peter and Liu, Qiang",
        "Conflict-Averse Gradient Descent for Multi-task Learning",
        "2021",
        _NEURIPS,
    ),
    _article(
        "mgda",
        "D{\\'e}sid{\\'e}ri, Jean-Antoine",
        "Multiple-gradient descent algorithm ({MGDA}) for multiobjective optimization",
        "2012",
        "Comptes Rendus Math{\\'e}matique",
        "350",
        "313--318",
    ),
    _arxiv(
        "chebyshev",
        "Yoon, Hoyeol and Bae, Seoungbin and Ho-Nguyen, Nam and Lee, Dabeen",
        "{Chebyshev} Center-Based Direction Selection for Multi-Objective Optimization and"
        " Training {PINNs}",
        "2026",
        "2605.09975",
    ),
    _paper(
        "imtl_g",
        "Liu, Liyang and Li, Yi and Kuang, Zhanghui and Xue, Jing-Hao and Chen, Yimin and Yang,"
        " Wenming and Liao, Qingmin and Zhang, Wayne",
        "Towards Impartial Multi-task Learning",
        "2021",
        _ICLR,
    ),
    _paper(
        "aligned_mtl",
        "Senushkin, Dmitry and Patakin, Nikolay and Kuznetsov, Arseny and Konushin, Anton",
        "Independent Component Alignment for Multi-Task Learning",
        "2023",
        "Conference on Computer Vision and Pattern Recognition",
    ),
    _arxiv(
        "upgrad",
        "Quinton, Pierre and Rey, Val{\\'e}rian",
        "{Jacobian} Descent for Multi-Objective Optimization",
        "2024",
        "2406.16232",
    ),
    _paper(
        "dual_proj",
        "Lopez-Paz, David and Ranzato, Marc'Aurelio",
        "Gradient Episodic Memory for Continual Learning",
        "2017",
        _NEURIPS,
    ),
    _paper(
        "nash_mtl",
        "Navon, Aviv and Shamsian, Aviv and Achituve, Idan and Maron, Haggai and Kawaguchi, Kenji"
        " and Chechik, Gal and Fetaya, Ethan",
        "Multi-Task Learning as a Bargaining Game",
        "2022",
        _ICML,
    ),
    _paper(
        "grad_drop",
        "Chen, Zhao and Ngiam, Jiquan and Huang, Yanping and Luong, Thang and Kretzschmar, Henrik"
        " and Chai, Yuning and Anguelov, Dragomir",
        "Just Pick a Sign: Optimizing Deep Multitask Models with Gradient Sign Dropout",
        "2020",
        _NEURIPS,
    ),
    _paper(
        "adam",
        "Kingma, Diederik P. and Ba, Jimmy",
        "{Adam}: A Method for Stochastic Optimization",
        "2015",
        _ICLR,
    ),
    _paper(
        "adamw",
        "Loshchilov, Ilya and Hutter, Frank",
        "Decoupled Weight Decay Regularization",
        "2019",
        _ICLR,
    ),
    Entry(
        "misc",
        "muon",
        {
            "author": "Jordan, Keller and Jin, Yuchen and Boza, Vlado and You, Jiacheng and"
            " Cesista, Franz and Newhouse, Laker and Bernstein, Jeremy",
            "title": "Muon: An optimizer for hidden layers in neural networks",
            "year": "2024",
            "howpublished": "https://kellerjordan.github.io/posts/muon",
        },
    ),
    _arxiv(
        "soap",
        "Vyas, Nikhil and Morwani, Depen and Zhao, Rosie and Kwun, Mujin and Shapira, Itai and"
        " Brandfonbrener, David and Janson, Lucas and Kakade, Sham",
        "{SOAP}: Improving and Stabilizing {Shampoo} using {Adam}",
        "2024",
        "2409.11321",
    ),
    _article(
        "lbfgs",
        "Liu, Dong C. and Nocedal, Jorge",
        "On the limited memory {BFGS} method for large scale optimization",
        "1989",
        "Mathematical Programming",
        "45",
        "503--528",
    ),
    Entry(
        "book",
        "bfgs",
        {
            "author": "Nocedal, Jorge and Wright, Stephen J.",
            "title": "Numerical Optimization",
            "year": "2006",
            "publisher": "Springer",
            "edition": "2",
        },
    ),
    _arxiv(
        "self_scaled",
        "Urb{\\'a}n, Jorge F. and Stefanou, Petros and Pons, Jos{\\'e} A.",
        "Unveiling the optimization process of Physics Informed Neural Networks: How accurate and"
        " competitive can {PINNs} be?",
        "2024",
        "2405.04230",
    ),
    _article(
        "marquardt",
        "Marquardt, Donald W.",
        "An Algorithm for Least-Squares Estimation of Nonlinear Parameters",
        "1963",
        "Journal of the Society for Industrial and Applied Mathematics",
        "11",
        "431--441",
    ),
    _arxiv(
        "spring",
        "Goldshlager, Gil and Abrahamsen, Nilin and Lin, Lin",
        "A Kaczmarz-inspired approach to accelerate the optimization of neural network"
        " wavefunctions",
        "2024",
        "2401.10190",
    ),
    _arxiv(
        "nystrom",
        "Frangella, Zachary and Tropp, Joel A. and Udell, Madeleine",
        'Randomized {Nystr{\\"o}m} Preconditioning',
        "2021",
        "2110.02820",
    ),
    _article(
        "rad",
        "Wu, Chenxi and Zhu, Min and Tan, Qinyang and Kartha, Yadhu and Lu, Lu",
        "A comprehensive study of non-adaptive and residual-based adaptive sampling for"
        " physics-informed neural networks",
        "2023",
        "Computer Methods in Applied Mechanics and Engineering",
        "403",
        "115671",
    ),
    _paper(
        "r3",
        "Daw, Arka and Bu, Jie and Wang, Sifan and Perdikaris, Paris and Karpatne, Anuj",
        "Mitigating Propagation Failures in Physics-informed Neural Networks using"
        " Retain-Resample-Release ({R3}) Sampling",
        "2023",
        _ICML,
    ),
    _arxiv(
        "causal",
        "Wang, Sifan and Sankaran, Shyam and Perdikaris, Paris",
        "Respecting causality is all you need for training physics-informed neural networks",
        "2022",
        "2203.07404",
    ),
    _arxiv(
        "vrba",
        "Toscano, Juan Diego and Chen, Daniel T. and Oommen, Vivek and Karniadakis, George Em",
        "A Variational Framework for Residual-Based Adaptivity in Neural {PDE} Solvers and Operator"
        " Learning",
        "2025",
        "2509.14198",
    ),
    _article(
        "lra",
        "Wang, Sifan and Teng, Yujun and Perdikaris, Paris",
        "Understanding and Mitigating Gradient Flow Pathologies in Physics-Informed Neural"
        " Networks",
        "2021",
        "SIAM Journal on Scientific Computing",
        "43",
        "A3055--A3081",
    ),
    _article(
        "ntk",
        "Wang, Sifan and Yu, Xinling and Perdikaris, Paris",
        "When and why {PINNs} fail to train: A neural tangent kernel perspective",
        "2022",
        _JCP,
        "449",
        "110768",
    ),
    _arxiv(
        "norm",
        "Wang, Sifan and Sankaran, Shyam and Wang, Hanwen and Perdikaris, Paris",
        "An Expert's Guide to Training Physics-informed Neural Networks",
        "2023",
        "2308.08468",
    ),
    _paper(
        "gradnorm",
        "Chen, Zhao and Badrinarayanan, Vijay and Lee, Chen-Yu and Rabinovich, Andrew",
        "{GradNorm}: Gradient Normalization for Adaptive Loss Balancing in Deep Multitask Networks",
        "2018",
        _ICML,
    ),
    _arxiv(
        "relobralo",
        "Bischof, Rafael and Kraus, Michael",
        "Multi-Objective Loss Balancing for Physics-Informed Deep Learning",
        "2021",
        "2110.09813",
    ),
    _arxiv(
        "softadapt",
        "Heydari, A. Ali and Thompson, Craig A. and Mehmood, Asif",
        "{SoftAdapt}: Techniques for Adaptive Loss Weighting of Neural Networks with Multi-Part"
        " Loss Functions",
        "2019",
        "1912.12355",
    ),
    _article(
        "self_adaptive",
        "McClenny, Levi D. and Braga-Neto, Ulisses M.",
        "Self-adaptive physics-informed neural networks",
        "2023",
        _JCP,
        "474",
        "111722",
    ),
    _paper(
        "multi_adam",
        "Yao, Jiachen and Su, Chang and Hao, Zhongkai and Liu, Songming and Su, Hang and Zhu, Jun",
        "{MultiAdam}: Parameter-wise Scale-invariant Optimizer for Multiscale Training of"
        " Physics-informed Neural Networks",
        "2023",
        _ICML,
    ),
    _article(
        "piratenet",
        "Wang, Sifan and Li, Bowen and Chen, Yuhan and Perdikaris, Paris",
        "{PirateNets}: Physics-informed Deep Learning with Residual Adaptive Networks",
        "2024",
        "Journal of Machine Learning Research",
        "25",
        "1--51",
    ),
    _arxiv(
        "factorized",
        "Wang, Sifan and Wang, Hanwen and Seidman, Jacob H. and Perdikaris, Paris",
        "Random Weight Factorization Improves the Training of Continuous Neural Representations",
        "2022",
        "2210.01274",
    ),
    _paper(
        "fourier",
        "Tancik, Matthew and Srinivasan, Pratul P. and Mildenhall, Ben and Fridovich-Keil, Sara"
        " and Raghavan, Nithin and Singhal, Utkarsh and Ramamoorthi, Ravi and Barron, Jonathan T."
        " and Ng, Ren",
        "{Fourier} Features Let Networks Learn High Frequency Functions in Low Dimensional Domains",
        "2020",
        _NEURIPS,
    ),
    _article(
        "periodic",
        "Dong, Suchuan and Ni, Naxian",
        "A method for representing periodic functions and enforcing exactly periodic boundary"
        " conditions with deep neural networks",
        "2021",
        _JCP,
        "435",
        "110242",
    ),
    _article(
        "adaptive",
        "Jagtap, Ameya D. and Kawaguchi, Kenji and Karniadakis, George Em",
        "Adaptive activation functions accelerate convergence in deep and physics-informed neural"
        " networks",
        "2020",
        _JCP,
        "404",
        "109136",
    ),
    _paper(
        "siren",
        "Sitzmann, Vincent and Martel, Julien N. P. and Bergman, Alexander W. and Lindell, David B."
        " and Wetzstein, Gordon",
        "Implicit Neural Representations with Periodic Activation Functions",
        "2020",
        _NEURIPS,
    ),
    _article(
        "pinn",
        "Raissi, Maziar and Perdikaris, Paris and Karniadakis, George E.",
        "Physics-informed neural networks: A deep learning framework for solving forward and"
        " inverse problems involving nonlinear partial differential equations",
        "2019",
        _JCP,
        "378",
        "686--707",
    ),
    _article(
        "burgers",
        "Basdevant, Claude and Deville, Michel and Haldenwang, Pierre and Lacroix, Jean-Marie and"
        " Ouazzani, Jalil and Peyret, Roger and Orlandi, Paolo and Patera, Anthony T.",
        "Spectral and finite difference solutions of the {Burgers} equation",
        "1986",
        "Computers \\& Fluids",
        "14",
        "23--41",
    ),
    _article(
        "ghia",
        "Ghia, Urmila and Ghia, Kirti N. and Shin, C. T.",
        "High-{Re} solutions for incompressible flow using the {Navier-Stokes} equations and a"
        " multigrid method",
        "1982",
        _JCP,
        "48",
        "387--411",
    ),
    _article(
        "deepxde",
        "Lu, Lu and Meng, Xuhui and Mao, Zhiping and Karniadakis, George Em",
        "{DeepXDE}: A Deep Learning Library for Solving Differential Equations",
        "2021",
        "SIAM Review",
        "63",
        "208--228",
    ),
    _paper(
        "failure_modes",
        "Krishnapriyan, Aditi S. and Gholami, Amir and Zhe, Shandian and Kirby, Robert M. and"
        " Mahoney, Michael W.",
        "Characterizing possible failure modes in physics-informed neural networks",
        "2021",
        _NEURIPS,
    ),
    _arxiv(
        "hutchinson",
        "Hu, Zheyuan and Shi, Zekun and Karniadakis, George Em and Kawaguchi, Kenji",
        "{Hutchinson} Trace Estimation for High-Dimensional and High-Order Physics-Informed Neural"
        " Networks",
        "2023",
        "2312.14499",
    ),
    _arxiv(
        "stde",
        "Shi, Zekun and Hu, Zheyuan and Lin, Min and Kawaguchi, Kenji",
        "Stochastic {Taylor} Derivative Estimator: Efficient amortization for arbitrary"
        " differential operators",
        "2024",
        "2412.00088",
    ),
    _arxiv(
        "sdgd",
        "Hu, Zheyuan and Shukla, Khemraj and Karniadakis, George Em and Kawaguchi, Kenji",
        "Tackling the Curse of Dimensionality with Physics-Informed Neural Networks",
        "2023",
        "2307.12306",
    ),
    _arxiv(
        "kolmogorov",
        "Beck, Christian and Becker, Sebastian and Grohs, Philipp and Jaafari, Nor and Jentzen,"
        " Arnulf",
        "Solving the {Kolmogorov} {PDE} by means of deep learning",
        "2018",
        "1806.00421",
    ),
    _arxiv(
        "deep_bsde",
        "E, Weinan and Han, Jiequn and Jentzen, Arnulf",
        "Deep learning-based numerical methods for high-dimensional parabolic partial differential"
        " equations and backward stochastic differential equations",
        "2017",
        "1706.04702",
    ),
    _arxiv(
        "hjb_losses",
        "Wang, Chuwei and Li, Shanda and He, Di and Wang, Liwei",
        "Is {L2} Physics-Informed Loss Always Suitable for Training Physics-Informed Neural"
        " Network?",
        "2022",
        "2206.02016",
    ),
    _arxiv(
        "fbsnn",
        "Raissi, Maziar",
        "Forward-Backward Stochastic Neural Networks: Deep Learning of High-dimensional Partial"
        " Differential Equations",
        "2018",
        "1804.07010",
    ),
)
ENTRIES: Mapping[str, Entry] = {entry.key: entry for entry in _ENTRIES}

_PROBLEMS: Mapping[str, tuple[str, ...]] = {
    "allen_cahn": ("pinn",),
    "allen_cahn_nd": ("deep_bsde",),
    "black_scholes": ("fbsnn",),
    "burgers": ("burgers", "dcgd"),
    "cavity_stream": ("lra", "ghia"),
    "cavity_velocity": ("lra", "ghia"),
    "convection": ("failure_modes",),
    "hamilton_jacobi_bellman": ("deep_bsde", "hjb_losses"),
    "heat": ("deepxde",),
    "heat_nd": ("kolmogorov",),
    "helmholtz2d": ("lra", "dcgd"),
    "helmholtz3d": ("modsync",),
    "klein_gordon2d": ("lra", "dcgd"),
    "klein_gordon3d": ("modsync",),
    "korteweg_de_vries": ("pinn",),
    "poisson1d": ("lra",),
    "poisson2d": (),
    "poisson_nd": ("sdgd",),
    "reaction": ("failure_modes",),
    "wave": ("ntk",),
}
_NETWORK: Mapping[str, str] = {
    "modified-mlp": "lra",
    "piratenet": "piratenet",
    "factorized": "factorized",
    "fourier_features": "fourier",
    "periods": "periodic",
    "adaptive": "adaptive",
    "omega": "siren",
}


_OPTIMIZER: Mapping[str, str] = {
    "adam": "adam",
    "adamw": "adamw",
    "muon": "muon",
    "soap": "soap",
    "lbfgs": "lbfgs",
    "bfgs": "bfgs",
    "ssbfgs": "self_scaled",
    "ssbroyden": "self_scaled",
    "gauss-newton": "marquardt",
    "momentum": "spring",
    "sketch": "nystrom",
    "rad": "rad",
    "r3": "r3",
    "balance": "ntk",
    "causal": "causal",
    "attention": "vrba",
    "hutchinson": "hutchinson",
    "stde": "stde",
}


def keys(
    method: str,
    problem: str = "",
    network: str | Iterable[str] = (),
    optimizer: str | Iterable[str] = (),
) -> tuple[str, ...]:
    """Returns the keys of `ENTRIES` for a run; arguments and errors as in `bibtex`."""
    found = ["modsync_jax", "pinn"]
    if method != methods.OWN:
        found += [methods.PARTS[part].citation for part in methods.parse(method).parts]
    for name in [optimizer] if isinstance(optimizer, str) else optimizer:
        if name not in ("sgd", methods.OWN):
            found.append(lookup("optimizer", name, _OPTIMIZER))
    if problem and ":" not in problem:  # a user's own problem has no entry
        if problem not in _PROBLEMS:
            raise unknown("problem", problem, problems.names())
        found += _PROBLEMS[problem]
    for name in [network] if isinstance(network, str) else network:
        if name != "mlp":
            if name not in _NETWORK:
                raise unknown("network", name, ["mlp", *_NETWORK])
            found.append(_NETWORK[name])
    return tuple(dict.fromkeys(found))


def bibtex(
    method: str,
    problem: str = "",
    network: str | Iterable[str] = (),
    optimizer: str | Iterable[str] = (),
) -> str:
    """Returns the BibTeX entries of a run, with empty lines between.

    Args:
      method: a method's name, such as `"modsync+lra+dcgd"`; `"own"` adds nothing.
      problem: a problem's name; your own problem, or no name, adds nothing.
      network: the kind of network and the settings in use, one or several of `"modified-mlp"`,
        `"piratenet"`, `"factorized"`, `"fourier_features"`, `"periods"`, `"adaptive"`, `"omega"`.
      optimizer: optimisers and phases, one or several of `"adam"`, `"adamw"`, `"muon"`, `"soap"`,
        `"lbfgs"`, `"bfgs"`, `"ssbfgs"`, `"ssbroyden"`, `"gauss-newton"`; `"momentum"` and
        `"sketch"` for these settings of the last one, `"rad"` and `"r3"` for points drawn where
        residuals are large, `"causal"` and `"attention"` for weights of points, and `"balance"` for
        loss weights by traces of tangent kernels.

    Raises:
      ValueError: on a name that is not known, with the nearest one.
    """
    found = keys(method, problem, network, optimizer)
    return "\n\n".join(ENTRIES[key].bibtex for key in found) + "\n"


def cite(
    method: str,
    problem: str = "",
    network: str | Iterable[str] = (),
    optimizer: str | Iterable[str] = (),
) -> None:
    """Prints what `bibtex` returns."""
    print(bibtex(method, problem, network, optimizer))


def of_run(config: Mapping[str, Any], optimizers: Iterable[str]) -> str:
    """Returns the BibTeX of a run.

    Args:
      config: the contents of its `config.json`.
      optimizers: its optimisers and phases, as in `bibtex`.
    """
    ours = config["architecture"] is not None  # the user's own network has no settings
    settings = {**config, "omega": config.get("omega", 1.0) != 1.0}
    used = [name for name in _NETWORK if ours and (config["network"] == name or settings.get(name))]
    known = config["problem"] if config["problem"] in _PROBLEMS else ""
    weights = [name for name in ("balance", "causal", "attention") if config.get(name)]
    way, _, directions = config.get("laplacian", "exact").partition(":")
    estimates = [way] if directions else []
    return bibtex(config["method"], known, used, [*optimizers, *weights, *estimates])
