// How numbers are written below the pictures.

/** A number with so many digits behind the point, and a true minus sign. */
export function write(value: number, digits = 2): string {
  const text = value.toFixed(digits);
  return /^-0\.?0*$/.test(text) ? text.slice(1) : text.replace("-", "−");
}

/** The same behind an operator: negative numbers in brackets. */
export function bracket(value: number, digits = 2): string {
  const text = write(value, digits);
  return text.startsWith("−") ? `(${text})` : text;
}
