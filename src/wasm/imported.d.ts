// The types of importing a .wasm file, as the runtimes of workerd.ts and edge-light.ts allow it.

declare module "*.wasm" {
  const module: WebAssembly.Module;
  export default module;
}

declare module "*.wasm?module" {
  const module: WebAssembly.Module;
  export default module;
}
