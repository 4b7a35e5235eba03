// The API page: starts Swagger UI with the server's OpenAPI schema.

/** A field that may be null is shown as one that may be left empty. */
function withoutNull({ anyOf, ...field }) {
  const types = (anyOf ?? []).filter(({ type }) => type !== "null");
  return types.length > 1 ? { ...field, anyOf: types } : { ...types[0], ...field };
}

/** Swagger UI would fill in examples, and samples where there are none: describe them instead. */
function withEmptyInput({ examples = [], ...field }) {
  const example = examples.length ? ` Example: ${examples[0]}` : "";
  return { ...field, description: `${field.description ?? ""}${example}`, example: "" };
}

/** Lists of files get buttons to choose them. */
function withFileInput(field) {
  if (!field.items?.contentMediaType) return field;
  return { ...field, items: { ...field.items, format: "binary" } };
}

/** Change a schema's forms so that they can be filled in and sent. */
function prepareForms(schema) {
  for (const [name, form] of Object.entries(schema.components.schemas)) {
    if (!name.endsWith("Form")) continue;
    for (const [key, field] of Object.entries(form.properties)) {
      const isOptional = field.anyOf !== undefined;
      form.properties[key] = withFileInput(isOptional ? withEmptyInput(withoutNull(field)) : field);
    }
  }
  return schema;
}

/** An empty field is one that was not filled in: it is not sent. */
function removeEmptyFields(request) {
  const form = request.body;
  if (form instanceof FormData) {
    for (const name of new Set(form.keys())) {
      if (form.getAll(name).every((value) => value === "")) form.delete(name);
    }
  }
  return request;
}

async function start() {
  const answer = await fetch("api/openapi.json");
  if (!answer.ok) throw new Error(`status ${answer.status}`);
  SwaggerUIBundle({
    spec: prepareForms(await answer.json()),
    requestInterceptor: removeEmptyFields,
    dom_id: "#api",
    deepLinking: true,
    tryItOutEnabled: true,
    validatorUrl: null, // no other host is called
    presets: [SwaggerUIBundle.presets.apis],
    layout: "BaseLayout",
  });
}

start().catch((error) => {
  document.querySelector("#api").textContent =
    `The description of the API could not be loaded (${error.message}). Reload this page.`;
});
