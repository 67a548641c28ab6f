// node run.mjs PYODIDE_FOLDER TREE.tar COMMAND…: unpacks the tree into the interpreter's own file system, where
// nothing reaches this machine's files, and runs tests/pyodide/inside.py there. Its exit code is this one's.
import { readFileSync, writeSync } from "node:fs";
import { pathToFileURL } from "node:url";

const [folder, tree, ...command] = process.argv.slice(2);
let code = 3;
try {
  const { loadPyodide } = await import(pathToFileURL(`${folder}/pyodide.mjs`).href);
  const python = await loadPyodide({
    env: { HOME: "/home/reader", LANG: "C.UTF-8", PYTHONDONTWRITEBYTECODE: "1" },
  });
  // As it comes: by default each flush would end a line.
  python.setStdout({ write: (bytes) => writeSync(1, bytes) });
  python.setStderr({ write: (bytes) => writeSync(2, bytes) });
  python.unpackArchive(new Uint8Array(readFileSync(tree)), "tar", { extractDir: "/" });
  python.globals.set("command", python.toPy(command));
  code = python.runPython(`
import os, sys
os.makedirs("/home/reader", exist_ok=True)
os.chdir("/checkout")
sys.path[:0] = ["/checkout", "/site"]
from tests.pyodide import inside
inside.main(command)
`);
} catch (error) {
  // Cut: an error of the runtime quotes the one line of a megabyte that it came from.
  console.error(String(error?.message ?? error).slice(-6000));
}
process.exit(code);
