"""How grave each fault of data is, what is said of it, and what to do about it; the gravest first. Standard library only.

An error breaks training or makes its result wrong, a warning is likely to harm, an info is worth knowing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from netlens.findings import Severity

E, W, I = Severity.ERROR, Severity.WARNING, Severity.INFO  # noqa: E741


@dataclass(frozen=True, slots=True)
class Entry:
    """What is said of one kind of fault.

    In `says`, {n} is the number of places, {total} of how many, {copies} of all that are alike all but one in each group; {s}, {es},
    {z}, {is}, {has}, {it}, {copy} and {class} follow it: "{n} class{es} {has} ...", "{copies} file{s} {is} {copy}".
    """

    severity: Severity
    says: str
    remedy: str


LEAVE_OUT = "get {it} again from the source, or leave {it} out: --fix-list writes the paths"
LOOK = "look at the contact sheet, and leave out what shows nothing of its class"
RGB = "load all pictures the same way, with Image.open(path).convert('RGB')"

BOOK: Mapping[str, Entry] = {
    # Training stops, or never starts.
    "no-batches": Entry(E, "the loader gives no batch, so nothing is trained", "check the length of the dataset; drop_last=False"),
    "sample-raises": Entry(E, "{n} sample{s} raise{z} when read", "mend or leave out these samples: one of them ends an epoch"),
    "collate-fails": Entry(
        E, "samples cannot become a batch", "let every sample have the same keys, types and shapes, or give a collate_fn"
    ),
    "shapes-differ": Entry(
        E, "samples have different shapes, and cannot become a batch", "resize and crop to one size, or give a collate_fn"
    ),
    "worker-dies": Entry(E, "a worker process dies", "read the dataset with num_workers=0 to see why; killed for memory: fewer workers"),
    "loader-stuck": Entry(E, "a batch does not come", "try num_workers=0, then timeout=60; open files and connections inside the worker"),
    "workers-fail": Entry(
        E, "the dataset works in the main process alone", "open files in __getitem__, and use module-level functions for lambdas"
    ),
    "value-nonfinite": Entry(E, "{n} sample{s} {has} NaN or infinite numbers", "leave {it} out or mend {it}: one makes every weight NaN"),
    "image-dtype": Entry(
        E, "pictures are of a type that layers do not take", "v2.ToDtype(torch.float32, scale=True), or .float(), before the network"
    ),
    "channels-last": Entry(
        E, "pictures have their channels last", "permute(2, 0, 1) each, or let ToTensor do it: layers take (N, C, H, W)"
    ),
    "label-type": Entry(E, "labels are of a type that a loss does not take", "make every label an integer class index (torch.int64)"),
    "label-range": Entry(
        E,
        "{n} label{s} {is} outside the classes",
        "let labels be 0 to K - 1, and give the model K outputs: on a GPU this ends in a device-side assert",
    ),
    "label-missing": Entry(E, "{n} row{s} {has} no label", "give {it} one, or leave {it} out"),
    "label-ignored": Entry(E, "every label is -100, which the loss ignores", "check how labels are made: the mean of no losses is NaN"),
    "label-one-hot": Entry(
        E, "{n} one-hot label{s} {has} no class", "give class indices, or rows that sum to 1: such rows have a loss of 0"
    ),
    "file-unreadable": Entry(E, "{n} of {total} files cannot be opened", "check permissions, links and the disk, or leave {it} out"),
    "file-empty": Entry(E, "{n} of {total} files {is} empty", LEAVE_OUT),
    "not-an-image": Entry(E, "{n} of {total} files {is} no picture, whatever the name says", LEAVE_OUT),
    "picture-truncated": Entry(E, "{n} of {total} files end{z} before the picture does", LEAVE_OUT),
    "picture-undecodable": Entry(E, "{n} of {total} pictures cannot be decoded", LEAVE_OUT),
    "picture-too-large": Entry(
        E,
        "{n} of {total} pictures {has} more pixels than a data set should hold",
        "make {it} smaller once, or leave {it} out: Pillow warns from 89 megapixels on and refuses from 179 on",
    ),
    "folder-unreadable": Entry(E, "{n} folder{s} cannot be read", "check permissions: ImageFolder leaves such folders out without a word"),
    "empty-class": Entry(
        E, "{n} class{es} {has} no picture", "remove the folder, or fill it: ImageFolder stops at it unless allow_empty=True"
    ),
    "row-without-file": Entry(E, "{n} row{s} name{z} a picture that is not there", "fetch the files, or leave the rows out"),
    # The result is wrong, and nothing says so.
    "class-index-shift": Entry(
        E,
        "{n} class{es} {has} two indices, so the network is scored against the wrong classes",
        "build every split with the classes of train: set class_to_idx by hand, or make the missing folders",
    ),
    "class-unknown": Entry(
        E,
        "{n} class{es} {is} none of those that are learned",
        "the network cannot learn what it never sees: add pictures, or leave {it} out",
    ),
    "hidden-class": Entry(
        E, "{n} hidden folder{s} {is} taken as {class}", "remove {it}: what ImageFolder takes as {class} moves the indices of others"
    ),
    "leak-exact": Entry(
        E,
        "{n} picture{s} {is} in two splits: what is measured there is memory",
        "leave the copies out of train: --fix-list writes the paths of files",
    ),
    "leak-near": Entry(
        E,
        "{n} picture{s} {is} in two splits, hardly changed: what is measured there is memory",
        "look at the contact sheet, and leave the copies out of train: --fix-list writes the paths of files",
    ),
    "duplicate-labels": Entry(E, "{n} picture{s} {has} copies with another label", "find out which label is right, and keep one copy"),
    "label-conflict": Entry(E, "{n} picture{s} {has} rows with different labels", "find out which is right: training sees both"),
    "label-spelling": Entry(E, "{n} label{s} {is} spelled in several ways, each a class of its own", "write {it} one way, without spaces"),
    "link-loop": Entry(
        E, "{n} link{s} lead{z} back to a folder above", "remove {it}: ImageFolder follows links, and takes every file many times"
    ),
    "normalised-twice": Entry(
        E, "pictures are normalised twice", "leave one Normalize out: of the transform, of the dataset or of the model"
    ),
    "normalised-wrong": Entry(
        E, "pictures are normalised for another scale", "divide by 255 once, before Normalize, whose numbers are for 0 to 1"
    ),
    "worker-seeds": Entry(
        E,
        "workers, or epochs, draw the same random numbers",
        "draw with torch or the global numpy.random, or make generators in worker_init_fn from torch.initial_seed()",
    ),
    "worker-duplicates": Entry(
        E, "every sample comes once per worker", "let each worker give its share: torch.utils.data.get_worker_info() has id and num_workers"
    ),
    "sample-mutated": Entry(
        E, "{n} sample{s} {is} another when read again", "work on a copy in __getitem__: x = x.copy(), x - mean and not x -= mean"
    ),
    # Likely harm.
    "hidden-file": Entry(
        W, "{n} hidden file{s} or folder{s} {is} among the samples", "remove {it}: find DIR -name '._*' -delete for those of macOS"
    ),
    "picture-damaged": Entry(W, "{n} of {total} pictures open{z}, but a part is destroyed", LEAVE_OUT),
    "value-range": Entry(
        W,
        "pictures hold 0 to 255, where networks take 0 to 1 or normalised numbers",
        "v2.ToDtype(torch.float32, scale=True), then Normalize",
    ),
    "unshuffled": Entry(W, "classes come one after the other", "shuffle=True for training, or a RandomSampler"),
    "one-label": Entry(
        W, "all that was read has the same label", "check how labels are made: shuffle a loader, name the folder that holds the classes"
    ),
    "length-wrong": Entry(W, "len() is not what comes", "let __len__ tell the truth: schedules and progress follow it"),
    "dropped-samples": Entry(W, "samples are dropped in every epoch", "drop_last=False, or a smaller batch"),
    "last-batch-of-one": Entry(
        W, "the last batch has one sample", "drop_last=True for training, or another batch size: BatchNorm needs two"
    ),
    "memory-growth": Entry(
        W, "the process grows from epoch to epoch", "keep nothing of each sample: detach, bound caches, no lists on self"
    ),
    "class-betrayed": Entry(
        W,
        "{n} class{es} can be told without looking at the picture",
        "save all pictures with one program, in one format, quality and size; else the network may learn the difference",
    ),
    "class-missing": Entry(
        W, "a split has no picture of some classes", "add pictures: nothing is learned or measured of these classes there"
    ),
    "class-imbalance": Entry(
        W, "classes are of very different sizes", "weight the loss, or draw with WeightedRandomSampler, and report accuracy per class"
    ),
    "tiny-class": Entry(W, "{n} class{es} {has} next to no pictures", "add pictures, or merge {it} with another class"),
    "case-collision": Entry(
        W, "{n} name{s} differ{z} from another in case or accents only", "rename {it}: on another computer only one of them is left"
    ),
    "numeric-classes": Entry(
        W,
        "classes are numbers whose indices are not these numbers",
        "use dataset.class_to_idx, or names of equal length: 01, 02, 10",
    ),
    "skipped-file": Entry(W, "{n} picture{s} {is} left out by ImageFolder", "convert {it} to PNG or JPEG, or give is_valid_file"),
    "stray-file": Entry(W, "{n} picture{s} beside the classes {is} left out by ImageFolder", "move {it} into the folder of a class"),
    "row-malformed": Entry(
        W, "{n} row{s} {is} not written like the others, and left out", "quote cells that hold the separator, and close all quotes"
    ),
    "duplicate-exact": Entry(W, "{copies} of {total} files {is} {copy}", "keep one of each: --fix-list writes all but the first"),
    "duplicate-near": Entry(
        W, "{copies} of {total} pictures {is} {copy}, hardly changed", "look at the contact sheet, and keep one of each"
    ),
    "duplicate-mirrored": Entry(
        W, "{copies} of {total} pictures {is} {copy}, mirrored", "keep one of each: flipping is for augmentation to do"
    ),
    "duplicate-row": Entry(W, "{n} picture{s} {has} several rows", "keep one row of each: the others make it count twice"),
    "duplicate-samples": Entry(W, "{copies} sample{s} {is} {copy}", "check the sampler, and keep one of each"),
    "exif-rotated": Entry(
        W,
        "{n} of {total} pictures lie{z} on the side, or upside down, for training",
        "PIL.ImageOps.exif_transpose(image) in the loader: ImageFolder and torchvision.io do not read the EXIF orientation",
    ),
    "mode-16-bit": Entry(
        W,
        "{n} of {total} pictures {has} 16 bits a channel",
        "scale {it} yourself: convert('RGB'), as in ImageFolder, makes all above 255 of 65,535 white; torchvision.io keeps {it}",
    ),
    "mode-float": Entry(
        W,
        "{n} of {total} pictures hold{z} floating or 32-bit numbers",
        "scale {it} yourself: convert('RGB') cuts to 0..255, so that 0..1 becomes black",
    ),
    "mode-alpha": Entry(
        W,
        "{n} of {total} pictures {has} transparent parts",
        "lay {it} on one colour with Image.alpha_composite: convert('RGB') shows the colours that are hidden",
    ),
    "mode-cmyk": Entry(W, "{n} of {total} pictures {is} in the colours of print", f"{RGB}: torchvision.io gives 4 channels"),
    "all-transparent": Entry(W, "{n} of {total} pictures show{z} nothing: all is transparent", LEAVE_OUT),
    "blank": Entry(W, "{n} of {total} pictures show{z} next to nothing", LEAVE_OUT),
    "too-small": Entry(W, "{n} of {total} pictures {has} a side under 10 pixels", LOOK),
    "dark": Entry(W, "{n} of {total} pictures {is} nearly black", LOOK),
    "bright": Entry(W, "{n} of {total} pictures {is} nearly white", LOOK),
    "low-contrast": Entry(W, "{n} of {total} pictures {has} hardly any contrast", LOOK),
    "blurred": Entry(W, "{n} of {total} pictures {is} out of focus", LOOK),
    "motion-blurred": Entry(W, "{n} of {total} pictures {is} blurred in one direction", LOOK),
    "noisy": Entry(W, "{n} of {total} pictures {is} mostly noise", LOOK),
    "constant-sample": Entry(
        W, "{n} sample{s} {is} the same number everywhere", "look at {it}: a picture that shows nothing teaches nothing"
    ),
    "constant-channel": Entry(W, "a channel is the same number everywhere", "check how channels are made, and the order of the axes"),
    "loader-slow": Entry(W, "the loader is slower than what it feeds", "more workers, smaller files, or cheaper transforms"),
    "odd-name": Entry(W, "{n} name{s} {has} control characters, or {is} no text", "rename {it}: lists of files break at {it}"),
    # Worth knowing.
    "workers-useless": Entry(I, "there are more workers than can help", "try fewer, or none; --target-rate N says how many it takes"),
    "not-normalised": Entry(I, "pictures are from 0 to 1, not normalised", "right for a network that was trained so; else add Normalize"),
    "channel-order": Entry(I, "red and blue may be exchanged", "OpenCV reads BGR: cv2.cvtColor(image, cv2.COLOR_BGR2RGB)"),
    "letterboxed": Entry(I, "{n} of {total} pictures stand{z} between bars", "crop the bars, if only some pictures have them"),
    "upscaled": Entry(I, "{n} of {total} pictures {is} enlarged from smaller ones", "use the originals, where there are any"),
    "wrong-suffix": Entry(
        I, "{n} of {total} files {has} another format than the name says", "rename {it}: Pillow reads {it}, what goes by the name does not"
    ),
    "mode-palette": Entry(I, "{n} of {total} pictures {is} indices into a palette", RGB),
    "mode-bilevel": Entry(I, "{n} of {total} pictures {has} 1 bit a pixel", RGB),
    "mode-grey": Entry(I, "{n} of {total} pictures {is} grey", RGB),
    "grey-among-colour": Entry(I, "{n} of {total} pictures {is} grey, and the others are not", RGB),
    "modes-mixed": Entry(I, "pictures are of several modes", RGB),
    "animated": Entry(
        I, "{n} of {total} pictures {has} several frames or pages", "training sees the first alone: split {it} where more count"
    ),
    "odd-size": Entry(I, "{n} of {total} pictures {is} far larger or smaller than the others", "look at the contact sheet"),
    "odd-aspect": Entry(
        I, "{n} of {total} pictures {is} far from square", "a centre crop shows a small part of {it}: pad {it}, or leave {it} out"
    ),
    "file-without-row": Entry(I, "{n} picture{s} {is} named by no row", "nothing, if another table names {it}"),
    "other-file": Entry(I, "files of {n} other kind{s} lie among the pictures", "nothing: ImageFolder leaves them out"),
}
# What a picture looks like, or is made of: where more than half are so, it is no fault of single pictures.
NATURE = frozenset(
    (
        *("dark", "bright", "low-contrast", "blurred", "motion-blurred", "upscaled", "noisy", "letterboxed", "too-small", "blank"),
        *("mode-grey", "mode-palette", "mode-bilevel", "odd-aspect"),
    )
)
# Of which the places are groups that are alike.
COPIES = frozenset(
    ("duplicate-exact", "duplicate-near", "duplicate-mirrored", "duplicate-labels", "duplicate-samples", "leak-exact", "leak-near")
)
