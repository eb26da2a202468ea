"""Names that pickles use: those that no checkpoint needs, those of well-known packages, and those of plain weights."""

from __future__ import annotations


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Modules of which no class or function belongs into a checkpoint: commands, files, sockets, evaluated text, nested pickles, foreign memory.
HOSTILE_MODULES = _words(
    """
    os posix nt ntpath posixpath subprocess _posixsubprocess sys socket _socket socketserver ssl shutil pty tty termios runpy
    importlib imp _imp zipimport pkgutil pkg_resources ctypes _ctypes cffi webbrowser antigravity pickle _pickle cPickle marshal code
    codeop bdb pdb cProfile profile timeit trace tracemalloc doctest unittest pydoc platform operator _operator io _io fcntl mmap
    signal gc inspect ast dis asyncio concurrent multiprocessing threading _thread sched subinterpreters http urllib ftplib smtplib
    poplib imaplib telnetlib nntplib xmlrpc wsgiref requests httpx aiohttp urllib3 paramiko fabric pexpect ptyprocess sh plumbum
    tempfile zipfile tarfile gzip bz2 lzma glob fileinput linecache codecs shelve dbm sqlite3 logging.config distutils setuptools pip
    ensurepip venv site sitecustomize atexit tkinter turtle idlelib lib2to3 dill cloudpickle joblib.externals jsonpickle yaml jinja2
    mako numexpr sympy IPython ipykernel numpy.testing numpy.f2py numpy.distutils numpy.ctypeslib torch.hub torch.jit torch.package
    torch.serialization torch.fx torch.utils.cpp_extension torch.utils.bottleneck torch.utils.collect_env torch.utils._config_module
    torch._inductor torch._dynamo torch._export torch.export torch.multiprocessing torch.classes torch.ops torch.distributed.launcher
    torch.distributed.elastic torch.distributed.run torch.distributed.rpc torch.utils.model_zoo torchvision.datasets pandas.io
    pandas.core.computation
    """
)

HOSTILE_NAMES = _words(
    """
    builtins.eval builtins.exec builtins.execfile builtins.compile builtins.open builtins.file builtins.setattr
    builtins.delattr builtins.__import__ builtins.input builtins.raw_input builtins.breakpoint builtins.globals builtins.locals
    builtins.vars builtins.apply builtins.map builtins.filter builtins.reduce builtins.help builtins.exit builtins.quit
    builtins.__build_class__ builtins.reload builtins.memoryview builtins.classmethod builtins.staticmethod builtins.property
    builtins.super functools.reduce functools.partialmethod functools.singledispatch types.FunctionType types.CodeType
    types.LambdaType types.MethodType types.ModuleType types.coroutine types.new_class types.DynamicClassAttribute copyreg.pickle
    copyreg.add_extension copyreg.constructor _codecs.lookup _codecs.register numpy.load numpy.save numpy.fromfile numpy.memmap
    numpy.loadtxt numpy.genfromtxt numpy.savetxt numpy.vectorize numpy.apply_along_axis torch.load torch.save torch.compile
    torch.from_file torch.storage._load_from_file torch.utils.data.datapipes.utils.decoder.basichandlers collections.namedtuple
    weakref.finalize pathlib.Path.open pathlib.Path.write_text pathlib.Path.write_bytes pathlib.Path.unlink
    """
)

KNOWN_PACKAGES = _words(
    """
    torch torchvision timm torchaudio torchtext torchao numpy argparse collections omegaconf lightning pytorch_lightning
    lightning_fabric lightning_utilities transformers accelerate peft diffusers safetensors huggingface_hub fairseq fvcore iopath yacs
    easydict addict mmengine mmcv mmdet mmseg mmpretrain detectron2 ultralytics fastai fastcore pathlib datetime decimal fractions
    uuid enum random itertools copyreg functools types builtins _codecs abc typing dataclasses string math re time zoneinfo hydra
    jsonargparse monai segmentation_models_pytorch open_clip clip torchmetrics ignite sklearn scipy pandas deepspeed apex wandb ray
    xarray PIL einops kornia torch_geometric flair spacy stanza sentence_transformers
    """
)

# What torch.load(weights_only=True) reads, apart from the element types and the rebuild functions.
PLAIN = _words(
    """
    collections.OrderedDict collections.Counter collections.defaultdict builtins.set builtins.frozenset builtins.list builtins.dict
    builtins.tuple builtins.int builtins.float builtins.str builtins.bool builtins.bytes builtins.bytearray builtins.complex
    builtins.object copyreg._reconstructor _codecs.encode torch.Size torch.device torch.Tensor torch._tensor.Tensor
    torch.nn.parameter.Parameter torch.nn.parameter.Buffer torch._tensor._rebuild_from_type_v2 torch._tensor._rebuild_from_type
    torch.serialization._get_layout torch.dtype torch.layout torch.per_tensor_affine torch.per_channel_affine
    torch.per_channel_affine_float_qparams torch.per_tensor_symmetric torch.per_channel_symmetric torch.storage.UntypedStorage
    torch.storage.TypedStorage torch.storage._TypedStorage torch.storage._UntypedStorage torch.storage._load_from_bytes
    """
)

# Classes that torch.compile and torch.fx leave in pickled modules, out of modules that hold dangerous functions, too.
HARMLESS = _words(
    """
    torch._dynamo.eval_frame.OptimizedModule torch._dynamo.eval_frame.OptimizeContext torch._dynamo.convert_frame.CatchErrorsWrapper
    torch._dynamo.convert_frame.ConvertFrame torch._dynamo.convert_frame.ConvertFrameAssert torch._dynamo.convert_frame.ConvertFrameBox
    torch._dynamo.repro.after_dynamo.WrapBackendDebug torch._dynamo.hooks.Hooks torch.fx._symbolic_trace.Tracer
    torch.fx.graph_module.GraphModule torch.fx.proxy.GraphAppendingTracer
    """
)
