// Asks for the first page of the library while the modules load: their own request gets that answer.

if (!location.search)
  document.head.append(
    Object.assign(document.createElement("link"), {
      rel: "preload",
      as: "fetch",
      crossOrigin: "anonymous",
      href: "api/images?offset=0&limit=60&shapes=true", // as `api.images` writes it
    }),
  );
