// The design of the site: VitePress' own theme, with the fonts and colours of the playground.

import "./fonts.css";
import type { Theme } from "vitepress";
import DefaultTheme from "vitepress/theme-without-fonts";
import RunBlock from "../../src/examples/run-block.vue";
import "./style.css";

export default {
  extends: DefaultTheme,
  enhanceApp({ app }) {
    app.component("RunBlock", RunBlock);
  },
} satisfies Theme;
