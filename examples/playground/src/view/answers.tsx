/** The digit and what the network says of it, both ways. */

import type { ComponentChildren } from "preact";
import type { Answer, Answers } from "../answer.js";
import {
  announced,
  answers,
  BATCH_SIZES,
  batchSize,
  examination,
  finished,
  heldOut,
  model,
  stale,
} from "../state.js";
import { ContrastSlider, percent, Slider } from "./controls.js";
import { Drawing } from "./drawing.js";

export function AnswerSection() {
  return (
    <section aria-labelledby="draw" class="answering">
      <h2 id="draw">Draw a digit</h2>
      <div class="desk">
        <Drawing />
        <Cards />
      </div>
    </section>
  );
}

function Cards() {
  const both = answers.value;
  const found = examination.value;
  const count = heldOut.value?.count ?? 0;
  const adapted = model.value?.adapted != null;
  const n = batchSize.value;
  const better =
    found !== null && !stale.value && found.miniBatch > (found.adapted ?? found.running);
  const share = (value: number | null | undefined) =>
    value == null
      ? "…"
      : `${percent(value)} right of ${count.toLocaleString("en")} held-out digits`;
  return (
    <div class="side">
      <div class="cards">
        <Card
          kind={adapted ? "adapted" : "running"}
          title={adapted ? "Running averages, adapted" : "Running averages"}
          subtitle="one digit at a time"
          answer={both?.running ?? null}
          share={share(found?.adapted ?? found?.running)}
        />
        <Card
          kind="mini-batch"
          title={
            <>
              Mini-batch<span> statistics</span>
            </>
          }
          subtitle={
            n === 1 ? "of your digit alone" : `of yours and ${n - 1} other${n > 2 ? "s" : ""}`
          }
          answer={both?.miniBatch ?? null}
          share={share(found?.miniBatch)}
        />
      </div>
      <p class="why">{why(n, both?.refusal ?? null, better)}</p>
      <div class="sliders">
        <Slider
          id="batch-size"
          label="Test batch size"
          value={batchSize}
          values={BATCH_SIZES}
          show={String}
          hint="how many digits share one mini-batch at test time"
        />
        <ContrastSlider id="contrast" hint="less is greyer and noisier than anything in training" />
      </div>
      <output class="hidden" aria-live="polite" data-finished={finished.value}>
        {announced.value === null ? "" : spoken(announced.value, n)}
      </output>
    </div>
  );
}

/** @param better whether the mini-batch does better on the held-out digits */
function why(n: number, refusal: string | null, better: boolean) {
  if (n === 1) {
    return (
      <>
        <strong>Why the second fails:</strong> of one example the mean is the example itself, and
        the variance is zero. Each value minus itself is 0, so every unit gives its β, whatever you
        draw: always the same answer. The package refuses to do this with a{" "}
        <code title={refusal ?? ""}>SingleValueError</code>; shown is what it would come to.
      </>
    );
  }
  if (better) {
    return (
      <>
        <strong>Now the second does better:</strong> the averages do not fit these digits, and the
        mini-batch is made of them. But it takes {n - 1} other digit{n > 2 ? "s" : ""} to answer
        one, and the answer depends on them. How to repair the averages is shown at the end.
      </>
    );
  }
  if (n <= 16) {
    return (
      <>
        <strong>Why the second fails:</strong> with {n - 1} other digit{n > 2 ? "s" : ""} beside
        yours there is a variance, but {n <= 4 ? "it is mostly chance" : "much of it is chance"}:
        the answer to your digit depends on which others come along.
      </>
    );
  }
  return (
    <>
      <strong>Now the second works, at a price:</strong> the statistics of {n} digits are nearly
      those of all digits. But one has to wait for {n - 1} others to answer one, and the answer
      still depends on them.
    </>
  );
}

const sure = ({ digit, probabilities }: Answer): string =>
  `${digit}, ${Math.round(100 * probabilities[digit])} percent sure`;

function spoken({ running, miniBatch }: Answers, n: number): string {
  return `By running averages: ${sure(running)}. By the mini-batch of ${n}: ${sure(miniBatch)}.`;
}

interface CardProps {
  readonly kind: "running" | "adapted" | "mini-batch";
  readonly title: ComponentChildren;
  readonly subtitle: string;
  readonly answer: Answer | null;
  readonly share: string;
}

function Card({ kind, title, subtitle, answer, share }: CardProps) {
  return (
    <article class={`card ${kind}`}>
      <h3>{title}</h3>
      <p class="subtitle">{subtitle}</p>
      <p class="digit" data-answer={answer?.digit ?? ""}>
        {answer?.digit ?? "–"}
      </p>
      <ol class="bars" start={0}>
        {Array.from({ length: 10 }, (_, digit) => {
          const p = answer?.probabilities[digit] ?? 0;
          const best = answer?.digit === digit;
          return (
            <li key={digit} class={best ? "best" : ""} aria-label={`${digit}: ${percent(p)}`}>
              <span aria-hidden="true">{digit}</span>
              <span class="bar" style={{ "--share": p }} />
            </li>
          );
        })}
      </ol>
      <p class="share" aria-busy={stale.value}>
        {share}
      </p>
    </article>
  );
}
