// On which machine and from which commit a record is made, and the name for that kind of machine.

import { execFileSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { cpus, totalmem } from "node:os";

export interface Machine {
  /** The name of the record's file. Only times of one kind of processor can be compared. */
  readonly kind: string;
  readonly cpu: string;
  readonly cores: number;
  readonly memoryGiB: number;
  readonly caches: Readonly<Record<string, string>>;
  readonly platform: string;
  readonly node: string;
  readonly v8: string;
}

export function machine(): Machine {
  const [{ model }] = cpus();
  const { vendor, family, number } = processor();
  // In a virtual machine a processor's name often says no more than "AMD EPYC".
  const name = family ? `${vendor}-family-${family}-model-${number}` : model;
  return {
    kind: `${name}-${process.platform}`.toLowerCase().replace(/[^a-z0-9]+/g, "-"),
    cpu: family ? `${model.trim()} (family ${family}, model ${number})` : model.trim(),
    cores: cpus().length,
    memoryGiB: Math.round(totalmem() / 2 ** 30),
    caches: caches(),
    platform: `${process.platform} ${process.arch}`,
    node: process.versions.node,
    v8: process.versions.v8,
  };
}

export interface Commit {
  readonly id: string | null;
  /** Whether src/ or assembly/ had changes that were not committed. */
  readonly changed: boolean;
}

export function commit(): Commit {
  const git = (...args: string[]) => {
    try {
      return execFileSync("git", args, { encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] });
    } catch {
      return "";
    }
  };
  const id = git("rev-parse", "HEAD").trim();
  return { id: id || null, changed: !id || git("status", "--short", "src", "assembly") !== "" };
}

function processor(): { vendor: string; family?: string; number?: string } {
  if (!existsSync("/proc/cpuinfo")) return { vendor: "" };
  const info = readFileSync("/proc/cpuinfo", "utf8");
  const field = (name: string) => new RegExp(`^${name}\\s*: (.*)$`, "m").exec(info)?.[1].trim();
  const vendors: Record<string, string> = { AuthenticAMD: "amd", GenuineIntel: "intel" };
  const vendor = field("vendor_id") ?? "";
  const [family, number] = [field("cpu family"), field("model")];
  return {
    vendor: vendors[vendor] ?? vendor,
    ...(family && { family }),
    ...(number && { number }),
  };
}

function caches(): Record<string, string> {
  const found: Record<string, string> = {};
  for (let index = 0; index < 8; index++) {
    const folder = `/sys/devices/system/cpu/cpu0/cache/index${index}`;
    if (!existsSync(folder)) break;
    const read = (name: string) => readFileSync(`${folder}/${name}`, "utf8").trim();
    if (read("type") !== "Instruction") found[`L${read("level")}`] = read("size");
  }
  return found;
}
