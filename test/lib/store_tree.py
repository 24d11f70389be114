"""A directory store seen from outside: its files, and ways to harm them."""

import hashlib
import os


SUFFIX = '.obj'


def path_of(store, key):
    """The file of an object whose key needs no escapes in a directory store."""
    return os.path.join(store, 'objects', key + SUFFIX)


def objects(store):
    """All objects: {key: size}."""
    found = {}
    top = os.path.join(store, 'objects')
    for directory, _, names in os.walk(top):
        for name in names:
            if name.endswith(SUFFIX):
                path = os.path.join(directory, name)
                found[os.path.relpath(path, top)[:-len(SUFFIX)]] = os.path.getsize(path)
    return found


def fingerprint(directory):
    """All that a change of a tree would change: {path: (mode, hash of the content)}, times left out."""
    found = {}
    for parent, directories, names in os.walk(directory):
        for name in directories:
            path = os.path.join(parent, name)
            found[os.path.relpath(path, directory) + '/'] = (os.lstat(path).st_mode, '')
        for name in names:
            path = os.path.join(parent, name)
            with open(path, 'rb') as file:
                found[os.path.relpath(path, directory)] = (os.lstat(path).st_mode,
                                                           hashlib.sha256(file.read()).hexdigest())
    return found


def flip(at, bit=0):
    """A change of an object's content: one bit of byte `at` (negative: from the end)."""
    def change(content):
        harmed = bytearray(content)
        harmed[at] ^= 1 << bit
        return bytes(harmed)
    return change
