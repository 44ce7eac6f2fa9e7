"use strict";
// Swagger UI, signed in as whoever looks: what changes something carries the session's proof.
(() => {
  const proof = document.querySelector("meta[name=csrf]");
  window.ui = SwaggerUIBundle({
    url: "/api/openapi.json",
    dom_id: "#swagger-ui",
    deepLinking: true,
    docExpansion: "list",
    defaultModelsExpandDepth: 0,
    tryItOutEnabled: true,
    validatorUrl: null,
    presets: [SwaggerUIBundle.presets.apis],
    requestInterceptor: (request) => {
      if (proof && !request.headers.Authorization) request.headers["X-CSRF-Token"] = proof.content;
      return request;
    },
  });
})();
